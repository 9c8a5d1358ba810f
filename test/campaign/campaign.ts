/**
 * The campaign: metadata servers in namespaces of their own on disks of their own, chunk servers, clients that
 * never rest, and one fault after the other. At the end the power of all metadata servers is cut, everything
 * else is killed and started again, and all that was acknowledged must be there.
 *
 * Runs inside the namespaces that main.ts made; what it mounts, makes and starts ends with them.
 */
import path from 'node:path'
import { performance } from 'node:perf_hooks'
import { setTimeout as pause } from 'node:timers/promises'
import type { Client } from '../../core/client/api.ts'
import { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import { until } from '../integration/support/cluster.ts'
import { QuorumCluster } from '../integration/support/quorum-cluster.ts'
import { Crew } from './crew.ts'
import { DataLoad } from './data-load.ts'
import { LoopDisk } from '../integration/support/loop-disk.ts'
import { type Fault, plan, strike, type Victim } from './faults.ts'
import { longestGap, type Struck } from './figures.ts'
import { KeyValueLoad } from './key-value-load.ts'
import { MastershipWatch } from './mastership-watch.ts'
import { NamesLoad } from './names-load.ts'
import { hostOf, makeNetwork } from '../integration/support/network.ts'
import { Pulse } from './pulse.ts'

export interface CampaignOptions {
  readonly metadataServers: number
  /** Faults of each kind. */
  readonly each: number
  readonly seed: number
  /** A server is stopped or cut off for no longer. */
  readonly awayMsMax: number
  /** Exists and is empty: for everything that is made. */
  readonly directory: string
  readonly progress: (line: string) => void
}

export interface CampaignResult {
  readonly struck: readonly Struck[]
  readonly counts: Readonly<Record<string, number>>
  /** Each of them a broken promise. */
  readonly problems: readonly string[]
}

const PORT = 2510
const CHUNK_SERVERS = 3
const REPLICAS = '3:2'
const NAMES_CLIENTS = 3
const KEY_VALUE_CLIENTS = 2
const DATA_CLIENTS = 2
const SETTLE_MS_MIN = 500
const SETTLE_MS_MAX = 1_500
/** Nobody waits longer than this without something being broken. */
const ANSWER_TIMEOUT_MS = 60_000
/** Before the first fault. */
const WARM_COUNT = 500

/** Rejects when it could not be carried through; what it found is in the result. */
export async function runCampaign(options: CampaignOptions): Promise<CampaignResult> {
  const ends: (() => Promise<void>)[] = []
  try {
    return await new Campaign(options, (end) => ends.push(end)).run()
  } finally {
    for (const end of ends.reverse()) await end()
  }
}

class Campaign {
  readonly #options: CampaignOptions
  readonly #after: (end: () => Promise<void>) => void
  readonly #random: SeededRandom
  readonly #pulse = new Pulse()
  readonly #crew = new Crew()
  readonly #disks: LoopDisk[] = []
  readonly #struck: Struck[] = []

  constructor(options: CampaignOptions, after: (end: () => Promise<void>) => void) {
    this.#options = options
    this.#after = after
    this.#random = new SeededRandom(options.seed)
  }

  async run(): Promise<CampaignResult> {
    const startedMs = performance.now()
    const cluster = await this.#makeCluster()
    const names = new NamesLoad(this.#pulse, this.#crew, await this.#connect(cluster, 'names', NAMES_CLIENTS))
    const keys = await this.#connect(cluster, 'keys', KEY_VALUE_CLIENTS)
    const keyValue = new KeyValueLoad(this.#pulse, this.#crew, keys)
    const data = new DataLoad(this.#pulse, this.#crew, await this.#connect(cluster, 'data', DATA_CLIENTS))
    const loads = [names, keyValue, data]
    const watch = new MastershipWatch(cluster)
    try {
      await this.#trouble(cluster, async (number) => {
        for (const load of loads) await load.newRound(`round-${number}`, this.#random)
      })
      for (const load of loads) load.stop()
      await until('everything is answered', () => this.#crew.pendingCount === 0, ANSWER_TIMEOUT_MS)
      await this.#verify(cluster, loads)
      await this.#restart(cluster)
      await this.#verify(cluster, loads)
    } catch (error) {
      this.#crew.report('the campaign', error)
      for (const load of loads) load.stop()
    }
    await watch.stop()
    const checks = [...names.check(), ...keyValue.check(), ...watch.check()]
    return {
      struck: this.#struck,
      problems: [...this.#crew.problems, ...checks],
      counts: {
        seconds: Math.round((performance.now() - startedMs) / 1000),
        acknowledged: this.#pulse.count,
        ...{ namesOperations: names.count, keyValueOperations: keyValue.count, dataBytes: data.bytes },
        ...{ mastershipAnswers: watch.answerCount, terms: watch.termCount },
        longestNamesOperationMs: Math.round(names.longestMs),
      },
    }
  }

  /** One fault after the other. Rejects as soon as a client got what it must not get. */
  async #trouble(cluster: QuorumCluster, newRound: (number: number) => Promise<void>): Promise<void> {
    const { each, progress } = this.#options
    await newRound(0)
    await until('everybody is served', () => this.#pulse.count > WARM_COUNT)
    const faults = plan(each, this.#random.fork('plan'))
    for (const [index, fault] of faults.entries()) {
      progress(`${index + 1}/${faults.length} ${await this.#strike(cluster, fault)}`)
      if (this.#crew.problems.length > 0) throw new Error('the clients have stopped')
      await newRound(index + 1)
    }
  }

  async #makeCluster(): Promise<QuorumCluster> {
    const { metadataServers, directory } = this.#options
    const hosts = Array.from({ length: metadataServers }, (_, index) => hostOf('mds', index + 1))
    await makeNetwork(hosts)
    for (const { name } of hosts) this.#disks.push(await LoopDisk.make(path.join(directory, name)))
    return await QuorumCluster.start(this.#after, {
      places: hosts.map(({ address, prefix }, index) => ({
        address: `${address}:${PORT}`,
        repository: path.join(this.#disks[index]?.mountPoint ?? '', 'mds'),
        prefix,
      })),
      chunkServers: CHUNK_SERVERS,
      replicas: REPLICAS,
    })
  }

  async #connect(cluster: QuorumCluster, name: string, count: number): Promise<Client[]> {
    const clients: Client[] = []
    for (let number = 1; number <= count; number++) {
      const client = await cluster.connect(`${name}${number}`)
      this.#after(() => client.close())
      clients.push(client)
    }
    return clients
  }

  /** Its window begins with it and ends when all are back and have settled. Says what happened. */
  async #strike(cluster: QuorumCluster, { kind, target }: Fault): Promise<string> {
    const master = await cluster.master()
    const followers = cluster.members.filter((member) => member !== master)
    const follower = followers[this.#random.below(followers.length)]
    const member = target === 'master' || follower === undefined ? master : follower
    const number = cluster.members.indexOf(member) + 1
    const disk = this.#disks[number - 1]
    if (disk === undefined) throw new Error(`MDS#${member.id} has no disk`)
    const victim: Victim = { member, host: hostOf('mds', number), disk, awayMsMax: this.#options.awayMsMax }
    this.#pulse.takeWindow()
    const startedMs = performance.now()
    const what = await strike(kind, victim, this.#random)
    const healedMs = performance.now()
    await this.#recovered(cluster)
    const caughtUpMs = performance.now()
    await pause(SETTLE_MS_MIN + this.#random.below(SETTLE_MS_MAX - SETTLE_MS_MIN))
    const struck = { kind, target, what, gaps: this.#pulse.takeWindow() }
    this.#struck.push(struck)
    const times = `over after ${seconds(healedMs - startedMs)} s, all there ${seconds(caughtUpMs - healedMs)} s later`
    return `${kind} of the ${target} MDS#${member.id}: pause ${Math.round(longestGap(struck))} ms; ${what}; ${times}`
  }

  async #recovered(cluster: QuorumCluster): Promise<void> {
    await cluster.allThere(ANSWER_TIMEOUT_MS)
    const sinceMs = performance.now()
    const isServed = (): boolean =>
      this.#crew.problems.length > 0 || this.#pulse.silenceMs < performance.now() - sinceMs
    await until('every client is served again', isServed, ANSWER_TIMEOUT_MS)
  }

  /** As a new client sees it. */
  async #verify(cluster: QuorumCluster, loads: readonly Load[]): Promise<void> {
    const client = await cluster.connect('last')
    try {
      for (const load of loads) await load.lookAtEverything(client)
    } catch (error) {
      this.#crew.report('last', error)
    } finally {
      await client.close()
    }
  }

  /** All metadata servers lose power, the others are killed; all of it comes back. */
  async #restart(cluster: QuorumCluster): Promise<void> {
    this.#options.progress('everything loses power')
    for (const disk of this.#disks) await disk.cutPower()
    await cluster.killEverything()
    for (const disk of this.#disks) await disk.mountAgain()
    await cluster.startEverything()
  }
}

interface Load {
  /** The first one starts it. */
  newRound(name: string, random: SeededRandom): Promise<void>
  /** Nobody begins anything any more; what was begun may still be answered. */
  stop(): void
  /** All that is there, as this client sees it; rejects at once when it is plainly wrong. */
  lookAtEverything(client: Client): Promise<void>
}

function seconds(milliseconds: number): string {
  return (milliseconds / 1000).toFixed(1)
}
