/**
 * What one client of the key-value store does for a history, and how it is written down for the linearizability
 * checker (`mapModel`): reads, listings and transactions on few keys, guarded by what was seen before, some
 * keys bound to the session. Whoever runs it says how time passes.
 */
import { codeOf } from '../../base/errors.ts'
import type { KeyValue, KeyValueExpectation, KeyValueOutcome } from '../../client/api.ts'
import type { Random } from '../../platform/random.ts'
import type { HistoryOperation } from './linearizability.ts'
import type { MapInput, MapOutput } from './linearizability-models.ts'

const KEYS = ['a', 'b', 'c']
const PAUSE_MS_MAX = 400

export type MapHistory = HistoryOperation<MapInput, MapOutput>[]
export type Draft = { -readonly [K in keyof MapHistory[number]]: MapHistory[number][K] }

export class HistoryRecorder {
  readonly history: Draft[] = []
  /** No worker begins anything any more. */
  isOver = false
  readonly #pending = new Set<Draft>()
  readonly #dead = new Set<string>()
  #moment = 0
  #valueCount = 0

  get pendingCount(): number {
    return this.#pending.size
  }

  isAlive(client: string): boolean {
    return !this.isOver && !this.#dead.has(client)
  }

  /** No two are equal. */
  nextValue(): string {
    return `v${++this.#valueCount}`
  }

  /** The operation begins now. */
  begin(client: string, input: MapInput): Draft {
    const operation: Draft = { client, input, calledAt: ++this.#moment, returnedAt: null }
    this.history.push(operation)
    return operation
  }

  end(operation: Draft, output: MapOutput): void {
    operation.output = output
    operation.returnedAt = ++this.#moment
  }

  /** Null: the outcome is unknown, because the session expired before the answer. */
  async record(client: string, input: MapInput, answer: Promise<MapOutput>): Promise<MapOutput | null> {
    const operation = this.begin(client, input)
    this.#pending.add(operation)
    try {
      const output = await answer
      this.end(operation, output)
      return output
    } catch (error) {
      const code = codeOf(error)
      if (code !== 'EIO') throw new Error(`${JSON.stringify(input)} failed with ${code}`, { cause: error })
      return null
    } finally {
      this.#pending.delete(operation)
    }
  }

  /** What a process that dies has under way is never answered. */
  abandon(client: string): void {
    this.#dead.add(client)
    for (const operation of this.#pending) if (operation.client === client) this.#pending.delete(operation)
  }
}

export interface WorkerParts {
  readonly recorder: HistoryRecorder
  /** Its bound keys end with it, so one name for each session that may live at the same time as another. */
  readonly client: string
  readonly keyValue: KeyValue
  readonly random: Random
  pause(durationMs: number): Promise<void>
}

export class KeyValueWorker {
  readonly #recorder: HistoryRecorder
  readonly #client: string
  readonly #keyValue: KeyValue
  readonly #random: Random
  readonly #pause: (durationMs: number) => Promise<void>
  /** What it saw last, for guards that have a chance. */
  readonly #known = new Map<string, KeyValueExpectation>()

  constructor(parts: WorkerParts) {
    this.#recorder = parts.recorder
    this.#client = parts.client
    this.#keyValue = parts.keyValue
    this.#random = parts.random
    this.#pause = (durationMs) => parts.pause(durationMs)
  }

  async run(): Promise<void> {
    while (this.#recorder.isAlive(this.#client)) {
      await this.#operate()
      await this.#pause(this.#random.float() * PAUSE_MS_MAX)
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

  async #get(key: string): Promise<void> {
    const answer = this.#keyValue
      .get(key)
      .then((entry): MapOutput => ({ entries: entry === null ? [] : [shown(entry)] }))
    const output = await this.#recorder.record(this.#client, { kind: 'get', key }, answer)
    if (output !== null) this.#learn([key], output)
  }

  async #list(): Promise<void> {
    const answer = this.#keyValue.list().then(shownList)
    const output = await this.#recorder.record(this.#client, { kind: 'list', prefix: '' }, answer)
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
        ...(isBound ? { owner: this.#client } : {}),
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
    const output = await this.#recorder.record(this.#client, input, answer)
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

export function shownList({ revision, entries }: Awaited<ReturnType<KeyValue['list']>>): MapOutput {
  return { revision, entries: entries.map(shown) }
}

function outputOf(outcome: KeyValueOutcome): MapOutput {
  const { revision } = outcome
  if (outcome.succeeded) return { revision }
  const { failedGuard: guard, value, present } = outcome
  return { revision, failed: { guard, value: value?.toString() ?? null, present } }
}
