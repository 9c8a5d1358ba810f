/**
 * Records what concurrent clients of a simulated cluster see of the key-value store while processes crash,
 * lose power and lose each other, as a history for the linearizability checker. Everything follows from the
 * seed. An operation whose client died, or whose session expired before the answer, has an unknown outcome.
 */
import type { Client, KeyValue, KeyValueExpectation, KeyValueOutcome } from '../client/api.ts'
import { codeOf } from '../base/errors.ts'
import type { HistoryOperation } from './linearizability.ts'
import type { MapInput, MapOutput } from './linearizability-models.ts'
import { SeededRandom } from './seeded-random.ts'
import { type ClientNode, SimulatedCluster } from './simulated-cluster.ts'
import type { SimulatedRoles } from './simulated-roles.ts'

const NAMESPACE = 'history'
const KEYS = ['a', 'b', 'c']
const CLIENT_COUNT = 3
const WORKERS_PER_CLIENT = 2
const PAUSE_MS_MAX = 400
const FAULT_PAUSE_MS_MAX = 3000
const FAULT_MS_MAX = 12_000
const START_LIMIT_MS = 60_000

export interface HistoryOptions {
  readonly seed: number
  /** Of simulated time under faults. */
  readonly durationMs: number
  readonly roles?: Partial<SimulatedRoles>
  /** For planted bugs: what the clients use instead. */
  readonly decorate?: (keyValue: KeyValue, random: SeededRandom) => KeyValue
}

export type MapHistory = HistoryOperation<MapInput, MapOutput>[]
type Draft = { -readonly [K in keyof MapHistory[number]]: MapHistory[number][K] }

export interface Recording {
  readonly history: MapHistory
  readonly faultCount: number
}

/**
 * Runs it to the end, then some more without faults, so that everything that can be answered is and dead
 * sessions expire; then all clients close, and one more looks at what is left.
 */
export async function recordHistory(options: HistoryOptions): Promise<Recording> {
  const recorder = new Recorder(options)
  return await recorder.run()
}

class Recorder {
  readonly #options: HistoryOptions
  readonly #cluster: SimulatedCluster
  readonly #random: SeededRandom
  readonly #history: Draft[] = []
  /** Which life of each client runs: its keys end with it. */
  readonly #lives = new Map<ClientNode, number>()
  /** Owners whose process was killed. */
  readonly #dead = new Set<string>()
  #moment = 0
  #valueCount = 0
  #faultCount = 0
  readonly #pending = new Set<Draft>()
  /** Ends of sessions whose client died: they expire. */
  readonly #deaths: Draft[] = []
  #isOver = false

  constructor(options: HistoryOptions) {
    this.#options = options
    this.#random = new SeededRandom(options.seed)
    this.#cluster = new SimulatedCluster({
      seed: options.seed,
      chunkServerCount: 0,
      replicas: { normal: 1, minimum: 1 },
      ...(options.roles === undefined ? {} : { roles: options.roles }),
    })
  }

  async run(): Promise<Recording> {
    const { clock } = this.#cluster
    this.#cluster.start()
    for (let number = 1; number <= CLIENT_COUNT; number++) {
      const node = this.#cluster.addClient(`client${number}`, (client) => this.#begin(node, client))
      node.restart()
    }
    if (!(await clock.runUntil(() => this.#lives.size === CLIENT_COUNT, START_LIMIT_MS))) {
      throw new Error('the clients do not come up')
    }
    this.#trouble()
    await clock.advance(this.#options.durationMs)
    this.#isOver = true
    // The last fault ends, the supervisor restarts what is dead, sessions resume or expire.
    await clock.advance(FAULT_MS_MAX * 2)
    if (!(await clock.runUntil(() => this.#pending.size === 0, START_LIMIT_MS))) {
      throw new Error('operations are never answered')
    }
    for (const death of this.#deaths) Object.assign(death, { returnedAt: ++this.#moment, output: {} })
    await clock.settled(this.#finish(), START_LIMIT_MS)
    return { history: this.#history, faultCount: this.#faultCount }
  }

  async #finish(): Promise<void> {
    for (const node of this.#cluster.clients) {
      const owner = ownerOf(node, this.#lives.get(node) ?? 0)
      const closed = node.client?.close().then(() => ({}))
      if (closed !== undefined) await this.record(owner, { kind: 'end', owner }, closed)
    }
    const last = await new Promise<Client>((resolve) => this.#cluster.addClient('last', resolve).restart())
    const listed = last.keyValue(NAMESPACE).list().then(shownList)
    await this.record('last', { kind: 'list', prefix: '' }, listed)
    await last.close()
  }

  #begin(node: ClientNode, client: Client): void {
    const life = (this.#lives.get(node) ?? 0) + 1
    this.#lives.set(node, life)
    const random = this.#random.fork(`${node.name} ${life}`)
    const plain = client.keyValue(NAMESPACE)
    const keyValue = this.#options.decorate?.(plain, random) ?? plain
    for (let number = 0; number < WORKERS_PER_CLIENT; number++) {
      void new Worker(this, node, life, keyValue, random.fork(`${number}`)).run()
    }
  }

  // --- what workers use ---

  isAlive(node: ClientNode, life: number): boolean {
    return !this.#isOver && !this.#dead.has(ownerOf(node, life))
  }

  pause(delayMs: number): Promise<void> {
    return new Promise((resolve) => void this.#cluster.clock.setTimer(delayMs, resolve))
  }

  nextValue(): string {
    return `v${++this.#valueCount}`
  }

  async record(client: string, input: MapInput, answer: Promise<MapOutput>): Promise<MapOutput | null> {
    const operation: Draft = { client, input, calledAt: ++this.#moment, returnedAt: null }
    this.#history.push(operation)
    this.#pending.add(operation)
    try {
      const output = await answer
      operation.output = output
      operation.returnedAt = ++this.#moment
      return output
    } catch (error) {
      const code = codeOf(error)
      // The session expired before the answer. Everything else would be a surprise.
      if (code !== 'EIO') throw new Error(`${JSON.stringify(input)} failed with ${code}`, { cause: error })
      return null
    } finally {
      this.#pending.delete(operation)
    }
  }

  // --- faults ---

  #trouble(): void {
    if (this.#isOver) return
    const delayMs = this.#random.float() * FAULT_PAUSE_MS_MAX
    this.#cluster.clock.setTimer(delayMs, () => {
      if (this.#isOver) return
      this.#fault()
      this.#trouble()
    })
  }

  #fault(): void {
    const { clients, metadataServer, network, clock } = this.#cluster
    const node = clients[this.#random.below(clients.length)] as ClientNode
    const lengthMs = this.#random.float() * (this.#random.below(3) === 0 ? FAULT_MS_MAX : 1500)
    this.#faultCount++
    switch (this.#random.below(6)) {
      case 0:
      case 1: {
        if (this.#random.below(2) === 0) metadataServer.crash()
        else metadataServer.losePower()
        clock.setTimer(Math.min(lengthMs, 2000), () => metadataServer.restart())
        break
      }
      case 2:
      case 3:
        network.cut(node.host, metadataServer.host)
        break
      case 4: {
        this.#mayEnd(node)
        if (this.#random.below(2) === 0) network.partition(node.host, metadataServer.host)
        else network.blockOneWay(metadataServer.host, node.host)
        clock.setTimer(lengthMs, () => network.heal(node.host, metadataServer.host))
        break
      }
      default: {
        if (!node.isRunning) break
        this.#deaths.push(this.#mayEnd(node))
        this.#abandon(ownerOf(node, this.#lives.get(node) ?? 0))
        node.crash()
        clock.setTimer(lengthMs, () => node.restart())
      }
    }
  }

  /** Its session may expire from now on: once, because a new one is opened only when it is heard again. */
  #mayEnd(node: ClientNode): Draft {
    const input: MapInput = { kind: 'end', owner: ownerOf(node, this.#lives.get(node) ?? 0) }
    const end: Draft = { client: node.name, input, calledAt: ++this.#moment, returnedAt: null }
    this.#history.push(end)
    return end
  }

  /** Operations of a process that dies are never answered. */
  #abandon(owner: string): void {
    this.#dead.add(owner)
    for (const operation of this.#pending) if (operation.client === owner) this.#pending.delete(operation)
  }
}

function ownerOf(node: ClientNode, life: number): string {
  return `${node.name}.${life}`
}

class Worker {
  readonly #recorder: Recorder
  readonly #node: ClientNode
  readonly #life: number
  readonly #keyValue: KeyValue
  readonly #random: SeededRandom
  /** What it saw last, for guards that have a chance. */
  readonly #known = new Map<string, KeyValueExpectation>()

  constructor(recorder: Recorder, node: ClientNode, life: number, keyValue: KeyValue, random: SeededRandom) {
    this.#recorder = recorder
    this.#node = node
    this.#life = life
    this.#keyValue = keyValue
    this.#random = random
  }

  async run(): Promise<void> {
    while (this.#recorder.isAlive(this.#node, this.#life)) {
      await this.#operate()
      await this.#recorder.pause(this.#random.float() * PAUSE_MS_MAX)
    }
  }

  async #operate(): Promise<void> {
    const choice = this.#random.below(10)
    if (choice < 3) return await this.#get(this.#key())
    if (choice < 4) return await this.#list()
    const isGuarded = choice < 8
    const keys = KEYS.filter(() => this.#random.below(2) === 0)
    if (keys.length === 0) keys.push(this.#key())
    const guards = isGuarded
      ? keys.map((key) => ({ key, expected: this.#known.get(key) ?? ('absent' as const) }))
      : []
    const writes = keys.map((key) => {
      if (this.#random.below(5) === 0) return { key, value: null, isBound: false }
      return { key, value: this.#recorder.nextValue(), isBound: this.#random.below(3) === 0 }
    })
    await this.#transact(guards, writes)
  }

  #key(): string {
    return KEYS[this.#random.below(KEYS.length)] ?? ''
  }

  get #owner(): string {
    return ownerOf(this.#node, this.#life)
  }

  async #get(key: string): Promise<void> {
    const answer = this.#keyValue
      .get(key)
      .then((entry): MapOutput => ({ entries: entry === null ? [] : [shown(entry)] }))
    const output = await this.#recorder.record(this.#owner, { kind: 'get', key }, answer)
    if (output !== null) this.#learn([key], output)
  }

  async #list(): Promise<void> {
    const answer = this.#keyValue.list().then(shownList)
    const output = await this.#recorder.record(this.#owner, { kind: 'list', prefix: '' }, answer)
    if (output !== null) this.#learn(KEYS, output)
  }

  #learn(keys: readonly string[], { entries = [] }: MapOutput): void {
    for (const key of keys) {
      const entry = entries.find((candidate) => candidate.key === key)
      const isByValue = this.#random.below(2) === 0
      if (entry === undefined) this.#known.set(key, 'absent')
      else if (isByValue) this.#known.set(key, { value: Buffer.from(entry.value) })
      else this.#known.set(key, { revision: entry.revision })
    }
  }

  async #transact(
    guards: readonly { key: string; expected: KeyValueExpectation }[],
    writes: readonly { key: string; value: string | null; isBound: boolean }[],
  ): Promise<void> {
    const input: MapInput = {
      kind: 'transact',
      guards: guards.map(({ key, expected }) => ({
        key,
        expected:
          expected === 'absent' || 'revision' in expected
            ? expected
            : { value: Buffer.from(expected.value).toString() },
      })),
      writes: writes.map(({ key, value, isBound }) => ({
        key,
        value,
        ...(isBound ? { owner: this.#owner } : {}),
      })),
    }
    const answer = this.#keyValue
      .transact(
        guards,
        writes.map(({ key, value, isBound }) => ({
          key,
          value: value === null ? null : Buffer.from(value),
          bindToSession: isBound,
        })),
      )
      .then(outputOf)
    const output = await this.#recorder.record(this.#owner, input, answer)
    if (output?.failed !== undefined) for (const { key } of guards) this.#known.delete(key)
    if (output === null || output.failed !== undefined || output.revision === undefined) return
    for (const { key, value } of writes) {
      this.#known.set(key, value === null ? 'absent' : { revision: output.revision })
    }
  }
}

function shown({ key, value, revision }: { key: string; value: Buffer; revision: number }) {
  return { key, value: value.toString(), revision }
}

function shownList({ revision, entries }: Awaited<ReturnType<KeyValue['list']>>): MapOutput {
  return { revision, entries: entries.map(shown) }
}

function outputOf(outcome: KeyValueOutcome): MapOutput {
  const { revision } = outcome
  if (outcome.succeeded) return { revision }
  const { failedGuard: guard, value, present } = outcome
  return { revision, failed: { guard, value: value?.toString() ?? null, present } }
}
