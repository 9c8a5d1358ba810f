/** A metadata server of the simulated cluster: its store, term and vote outlive its processes. */
import { codeOf } from '../../base/errors.ts'
import { SimulatedHang } from './simulated-hang.ts'
import { SimulatedHardState, SimulatedHardStateContents } from './simulated-hard-state.ts'
import { SimulatedNode, SUPERVISOR_DELAY_MS } from './simulated-node.ts'
import type { ProcessLife } from './simulated-process.ts'
import type { SimulatedCluster } from './simulated-cluster.ts'
import { CLUSTER_NAME, type MetadataRole, type MetadataServerParts } from './simulated-roles.ts'
import { SimulatedSnapshotFiles } from './simulated-snapshot-files.ts'
import { SimulatedStore, SimulatedStoreContents } from './simulated-store.ts'

const BASE_PORT = 2510
/** A commit takes so long on the simulated store. */
const COMMIT_MS_MIN = 0.05
const COMMIT_MS_SPAN = 2

export class MetadataServerNode extends SimulatedNode {
  contents = new SimulatedStoreContents()
  hardState = new SimulatedHardStateContents()
  /** Of the store, and of term and vote. */
  readonly diskHang = new SimulatedHang()
  role: MetadataRole | null = null

  #stopping: ProcessLife | null = null
  /** The first founds the cluster, the others join it. */
  #isFounder: boolean

  constructor(cluster: SimulatedCluster, number: number) {
    super(cluster, number === 1 ? 'mds' : `mds${number}`, null)
    this.#isFounder = number === 1
  }

  get isMaster(): boolean {
    return this.role?.server.isMaster === true
  }

  /** Changed while it is dead, it is a member that moves. */
  port = BASE_PORT
  /** Why it cannot make a copy of its metadata for another member; null: it can. */
  snapshotFailure: string | null = null
  /** It ended because it was told that it is not a member any more. */
  isRemoved = false

  get address(): { host: string; port: number } {
    return { host: this.host, port: this.port }
  }

  protected async begin(life: ProcessLife): Promise<void> {
    const schedule = (callback: () => void): void =>
      void life.clock.setTimer(COMMIT_MS_MIN + life.random.float() * COMMIT_MS_SPAN, () =>
        this.diskHang.whenAnswered(callback),
      )
    const snapshots = new Map<string, SimulatedStoreContents>()
    const snapshotFailure = (): string | null => this.snapshotFailure
    const options = { schedule, snapshots, snapshotFailure }
    const openStore = (): SimulatedStore => new SimulatedStore(this.contents, options)
    const { window } = this.cluster.options
    const parts = (): MetadataServerParts => ({
      store: openStore(),
      snapshots: new SimulatedSnapshotFiles(this.contents, snapshots, openStore),
      ...(window === undefined ? {} : { window }),
      hardState: new SimulatedHardState(this.hardState, {
        schedule,
        isEarly: () => life.random.below(2) === 0,
      }),
      clock: life.clock,
      network: life.network,
      random: life.random,
      logger: this.cluster.loggerOf(this.name),
      clusterName: CLUSTER_NAME,
      hostName: this.host,
      address: this.address,
      onFatal: (error) => this.ended(life, error),
    })
    if (this.#isFounder && this.contents.appliedIndex === 0) await this.cluster.roles.createCluster(parts())
    if (!this.#isFounder && this.hardState.state === null) {
      const member = await this.cluster.addMember(this.address, this.host, life)
      if (life !== this.life) return
      this.hardState.state = { member, term: 0, vote: 0 }
    }
    const role = await this.cluster.roles.metadataServer(parts())
    if (life === this.life) this.role = role
  }

  /** Another repository on the same host and port: what starts there asks to become a member. */
  replace(): void {
    this.crash()
    this.contents = new SimulatedStoreContents()
    this.hardState = new SimulatedHardStateContents()
    this.isRemoved = false
    this.#isFounder = false
  }

  /** Asked to end, and not there yet. */
  get isStopping(): boolean {
    return this.life !== null && this.life === this.#stopping
  }

  /** In order: it hands over, then its process ends. */
  stop(): void {
    const { life, role } = this
    if (life === null || role === null || this.isStopping) return
    this.#stopping = life
    const end = (): void => {
      if (life === this.life) this.crash()
    }
    role.server.close().then(end, end)
  }

  protected override ended(life: ProcessLife, reason: unknown): void {
    if (codeOf(reason) !== 'MEMBER_REMOVED' || life !== this.life) {
      super.ended(life, reason)
      return
    }
    this.isRemoved = true
    this.crash()
    if (this.cluster.options.replacesRemovedMembers !== true) return
    this.cluster.clock.setTimer(SUPERVISOR_DELAY_MS, () => {
      // started again meanwhile, it has ended more than once
      if (!this.isRemoved) return
      this.replace()
      this.restart()
    })
  }

  protected forget(): void {
    this.role = null
    this.diskHang.forget()
  }
}
