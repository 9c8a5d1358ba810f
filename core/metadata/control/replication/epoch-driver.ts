/**
 * Carries every pending epoch to its end (rule E1): persisted by all members, reconciled where asked, then
 * activated. A member that fails is reported to recovery, which supersedes the epoch, possibly with members
 * it meant to remove; where nobody else can be taken the member is asked again until it answers. A new master
 * starts over for all pending epochs.
 */
import { mark } from '../../../base/coverage.ts'
import type { ReplicaRole } from '../../../wire/messages/chunk.ts'
import { LOSSES_LEVEL } from '../../state/feature-levels.ts'
import type { ChunkMember } from '../../state/rows.ts'
import type { Master } from '../servers/master.ts'
import type { ServerOrders } from '../servers/server-orders.ts'
import type { FailureKind } from '../servers/troubles.ts'

export interface Drive {
  readonly chunk: number
  readonly version: number
  readonly reconcile: boolean
  readonly members: readonly ChunkMember[]
  /** Members that have not made the version durable yet. */
  readonly waiting: Set<number>
  /** Members whose last answer was a failure; asked again. */
  readonly failing: Set<number>
  /** Joiners that start empty. */
  readonly copying: ReadonlySet<number>
}

export interface DriveOutcome {
  /** Supersedes if it can; the drive goes on otherwise. */
  memberFailed(drive: Drive, server: number, kind: FailureKind, code: string): void
  /** It restarted with unverified contents: only a reconciliation or a join makes it good again (rules B1, J9). */
  isUnclean(chunk: number, server: number): boolean
  memberUnclean(chunk: number): void
  /** A replica is newer than what the quorum committed: we lost state (rule G1). */
  alarm(chunk: number, server: number, heldVersion: number): void
  /** All members are durable at a version that must be reconciled; ends in `activate` or `memberFailed`. */
  reconcile(drive: Drive): void
}

const RETRY_MS = 500
const ACTIVATE_BATCH_COUNT_MAX = 1024
/** The order did not reach the server, or its answer did not reach us. */
const transportCodes = new Set(['DISCONNECTED', 'TIMED_OUT', 'OVERLOADED'])

export class EpochDriver {
  readonly #master: Master
  readonly #orders: ServerOrders
  readonly #outcome: DriveOutcome
  readonly #drives = new Map<number, Drive>()
  readonly #copyHints = new Map<number, ReadonlySet<number>>()
  #activations: { chunk: number; version: number; isLossy: boolean }[] = []

  constructor(master: Master, orders: ServerOrders, outcome: DriveOutcome) {
    this.#master = master
    this.#orders = orders
    this.#outcome = outcome
  }

  get count(): number {
    return this.#drives.size
  }

  driveOf(chunk: number): Drive | undefined {
    return this.#drives.get(chunk)
  }

  /** A copy. */
  chunks(): number[] {
    return [...this.#drives.keys()]
  }

  isCurrent(drive: Drive): boolean {
    return this.#drives.get(drive.chunk) === drive
  }

  /** Call before the proposal is applied: these joiners have no replica to compare with. */
  hintCopying(chunk: number, servers: readonly number[]): void {
    if (servers.length > 0) this.#copyHints.set(chunk, new Set(servers))
    else this.#copyHints.delete(chunk)
  }

  /** The chunk's pending epoch is new, or we are. */
  start(chunk: number): void {
    const row = this.#master.state.chunks.get(chunk)
    if (row === undefined || row.pending === null) return
    const { version, members, reconcile } = row.pending
    const drive: Drive = {
      chunk,
      version,
      reconcile,
      members,
      waiting: new Set(members.map((member) => member.server)),
      failing: new Set(),
      copying: this.#copyHints.get(chunk) ?? new Set(),
    }
    this.#copyHints.delete(chunk)
    this.#drives.set(chunk, drive)
    for (const member of members) this.#persist(drive, member)
  }

  /** The pending epoch was activated, or the chunk is gone. */
  ended(chunk: number): void {
    this.#drives.delete(chunk)
    this.#copyHints.delete(chunk)
  }

  /** `isLossy`: it begins with what a replica has that may lack acknowledged writes (rule F5). */
  activate(drive: Drive, isLossy = false): void {
    if (!this.isCurrent(drive)) return
    if (this.#activations.length === 0) this.#master.defer(() => this.#flushActivations())
    this.#activations.push({ chunk: drive.chunk, version: drive.version, isLossy })
  }

  /** The server can be asked (again): it has registered and reported. */
  serverReady(server: number): void {
    for (const drive of this.#drives.values()) {
      if (drive.failing.has(server)) this.#retry(drive, server)
    }
  }

  #flushActivations(): void {
    const activations = this.#activations.splice(0, ACTIVATE_BATCH_COUNT_MAX)
    if (this.#activations.length > 0) this.#master.defer(() => this.#flushActivations())
    const isTold = this.#master.state.level.inForce >= LOSSES_LEVEL
    const losses = activations.filter(({ isLossy }) => isLossy && isTold).map(({ chunk }) => chunk)
    const epochs = activations.map(({ chunk, version }) => ({ chunk, version }))
    this.#master.submit({ type: 'epoch.activate', epochs, ...(losses.length === 0 ? {} : { losses }) })
  }

  /** False too when the chunk went with its file: the drive ends a little later. */
  #isPending(drive: Drive): boolean {
    return this.#master.state.chunks.get(drive.chunk)?.pending?.version === drive.version
  }

  #persist(drive: Drive, member: ChunkMember): void {
    const role: ReplicaRole =
      member.role === 'joining' ? 'joining' : drive.reconcile ? 'reconciling' : 'in-sync'
    if (role === 'in-sync' && this.#outcome.isUnclean(drive.chunk, member.server)) {
      // To persist the version would say that what it holds is good.
      return this.#holdUnclean(drive, member.server)
    }
    const order = { chunk: drive.chunk, version: drive.version, role, lease: this.#fence(drive.chunk) }
    const isWanted = () => this.isCurrent(drive) && this.#isPending(drive)
    const create = () =>
      this.#orders.create(member.server, order, isWanted, (code) =>
        this.#answered(drive, member, code, drive.version),
      )
    const persist = (orElse: (() => void) | null) =>
      this.#orders.persist(member.server, order, (code, held) => {
        // Only the quorum creates replicas, and only empty joiners (rule E12).
        if (code === 'NO_REPLICA' && orElse !== null && isWanted()) orElse()
        else this.#answered(drive, member, code, held)
      })
    if (role === 'joining' && drive.copying.has(member.server)) {
      this.#orders.create(member.server, order, isWanted, (code) => {
        // It has something of this chunk after all: that is compared instead.
        if (code === '' || transportCodes.has(code) || code.startsWith('DISK_')) {
          this.#answered(drive, member, code, drive.version)
        } else persist(null)
      })
    } else persist(role === 'joining' ? create : null)
  }

  /**
   * Writes of older leases are refused from now on (rule E3). Lease numbers are log indexes: later ones are
   * above the applied index, but a new holder may be waiting for this chunk already.
   */
  #fence(chunk: number): number {
    const { state, log } = this.#master
    const row = state.chunks.get(chunk)
    if (row === undefined) return 0
    return row.dirtyDead ? (state.leaseByInode.get(row.inode) ?? log.appliedIndex) : row.intentLease
  }

  #answered(drive: Drive, member: ChunkMember, code: string, held: number): void {
    if (!this.isCurrent(drive)) return
    if (code === '') {
      drive.failing.delete(member.server)
      drive.waiting.delete(member.server)
      if (drive.waiting.size === 0) this.#persisted(drive)
      return
    }
    if (code === 'WRONG_VERSION' && held > drive.version) {
      this.#outcome.alarm(drive.chunk, member.server, held)
    }
    this.failed(drive, member.server, code === 'NO_REPLICA' ? 'lost' : 'exists', code)
  }

  #persisted(drive: Drive): void {
    if (drive.reconcile) return this.#outcome.reconcile(drive)
    // It had persisted the version and restarted since. While the epoch is pending those it would remove may be
    // taken instead (rule E1); once it is active, what only they have is lost (rule J3).
    const unclean = drive.members.filter(
      ({ role, server }) => role === 'in-sync' && this.#outcome.isUnclean(drive.chunk, server),
    )
    for (const { server } of unclean) this.#holdUnclean(drive, server)
    if (unclean.length === 0) this.activate(drive)
  }

  /** Superseded when there is somebody better; else it is looked at again. */
  #holdUnclean(drive: Drive, server: number): void {
    mark('a pending epoch waits for an unclean member')
    this.#retryLater(drive, server)
    this.#outcome.memberUnclean(drive.chunk)
  }

  /** A member could not follow. If nobody can take its place it is asked again. */
  failed(drive: Drive, server: number, kind: FailureKind, code: string): void {
    if (!this.isCurrent(drive)) return
    this.#retryLater(drive, server)
    this.#outcome.memberFailed(drive, server, kind, code)
  }

  #retryLater(drive: Drive, server: number): void {
    drive.failing.add(server)
    this.#master.after(RETRY_MS, () => {
      if (this.isCurrent(drive) && drive.failing.has(server)) this.#retry(drive, server)
    })
  }

  #retry(drive: Drive, server: number): void {
    const member = drive.members.find((candidate) => candidate.server === server)
    if (member === undefined || !this.#isPending(drive)) return
    drive.failing.delete(server)
    drive.waiting.add(server)
    this.#persist(drive, member)
  }
}
