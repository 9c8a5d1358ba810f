/**
 * Clients that wait for changes of the key-value store. Each waits with one call from the revision it has
 * seen; the queue behind it is the history that all share, and one that falls behind it is told "compacted".
 * So a slow, lost or doubled answer costs nothing: the client asks again from where it stands.
 *
 * A change is looked at once by every waiter of its namespace. A waiter that was not told of a change has
 * none, so only the history from its first match on must still be there.
 */
import type { Clock, Timer } from '../../../platform/clock.ts'
import type { KeyValueChange } from '../../keyvalue/change-history.ts'
import type { KeyValueTable } from '../../keyvalue/key-value-table.ts'
import { ITEM_OVERHEAD_BYTES, PAGE_BYTES_MAX } from '../../keyvalue/limits.ts'
import type { keyValueMethods } from '../../../wire/messages/key-value.ts'
import type { ParamsOf, ResultOf } from '../../../wire/messages/method.ts'
import { wireError } from '../../errors.ts'
import type { ReplicatedLog } from '../../log/replicated-log.ts'

/** More than a client waits with (client/limits.ts), so that none is refused in order. */
export const WATCHES_PER_SESSION_MAX = 256
/** Clients give up on a call after a minute. */
const WATCH_WAIT_MS_MAX = 30_000

type WatchQuestion = ParamsOf<typeof keyValueMethods, 'kv.watch'>
type WatchAnswer = ResultOf<typeof keyValueMethods, 'kv.watch'>

interface Waiter {
  readonly session: number
  readonly question: WatchQuestion
  readonly timer: Timer
  /** Revision of the first change it must be told; 0: none yet. */
  firstMatch: number
  readonly resolve: (answer: WatchAnswer) => void
  readonly reject: (error: Error) => void
}

export class KeyValueWatchers {
  readonly #clock: Clock
  readonly #log: ReplicatedLog
  readonly #table: KeyValueTable
  /** What changed up to here is not known to this master. */
  readonly #beganAt: number
  readonly #bySession = new Map<number, Map<number, Waiter>>()
  readonly #byNamespace = new Map<string, Set<Waiter>>()
  #matched: Waiter[] = []

  constructor(clock: Clock, log: ReplicatedLog, table: KeyValueTable) {
    this.#clock = clock
    this.#log = log
    this.#table = table
    this.#beganAt = log.appliedIndex
  }

  /** Is every change behind this revision in the history? */
  reaches(revision: number): boolean {
    const { droppedThrough } = this.#table.history
    return revision >= Math.max(this.#beganAt, droppedThrough) && revision <= this.#log.appliedIndex
  }

  async wait(session: number, question: WatchQuestion): Promise<WatchAnswer> {
    this.cancel(session, question.watch)
    if (!this.reaches(question.after)) return this.#compacted()
    const answer = this.#answer(question, question.after + 1)
    if (answer.changes.length > 0 || question.waitMs === 0) return answer
    const ofSession = this.#bySession.get(session) ?? new Map<number, Waiter>()
    if (ofSession.size >= WATCHES_PER_SESSION_MAX)
      throw wireError('OVERLOADED', 'the session watches too much')
    this.#bySession.set(session, ofSession)
    return await new Promise((resolve, reject) => {
      const waitMs = Math.min(question.waitMs, WATCH_WAIT_MS_MAX)
      const timer = this.#clock.setTimer(waitMs, () => this.#settle(waiter))
      const waiter: Waiter = { session, question, timer, firstMatch: 0, resolve, reject }
      ofSession.set(question.watch, waiter)
      const ofNamespace = this.#byNamespace.get(question.namespace)
      if (ofNamespace === undefined) this.#byNamespace.set(question.namespace, new Set([waiter]))
      else ofNamespace.add(waiter)
    })
  }

  /** Answers what waits under this number. */
  cancel(session: number, watch: number): void {
    const waiter = this.#bySession.get(session)?.get(watch)
    if (waiter !== undefined) this.#settle(waiter)
  }

  sessionEnded(session: number): void {
    for (const waiter of [...(this.#bySession.get(session)?.values() ?? [])]) {
      this.#forget(waiter)
      waiter.reject(wireError('NO_SESSION', `session ${session} has ended`))
    }
  }

  /** The command with this index was applied. */
  onApplied(index: number): void {
    if (this.#byNamespace.size === 0) return
    for (const change of this.#table.history.from(index)) this.#match(change)
  }

  #match({ namespace, key, revision }: KeyValueChange): void {
    for (const waiter of this.#byNamespace.get(namespace) ?? []) {
      if (waiter.firstMatch !== 0 || !key.startsWith(waiter.question.prefix)) continue
      waiter.firstMatch = revision
      this.#matched.push(waiter)
      // At the end of the turn: commands are applied many at once.
      if (this.#matched.length === 1) this.#clock.defer(() => this.#settleMatched())
    }
  }

  #settleMatched(): void {
    const matched = this.#matched
    this.#matched = []
    for (const waiter of matched) if (this.#isWaiting(waiter)) this.#settle(waiter)
  }

  #isWaiting({ session, question }: Waiter): boolean {
    return this.#bySession.get(session)?.has(question.watch) === true
  }

  #settle(waiter: Waiter): void {
    this.#forget(waiter)
    const { question, firstMatch } = waiter
    if (!this.#log.isReady) waiter.reject(wireError('NOT_MASTER', 'this metadata server is no master now'))
    else if (firstMatch === 0) waiter.resolve(this.#answer(question, this.#log.appliedIndex + 1))
    else if (firstMatch <= this.#table.history.droppedThrough) waiter.resolve(this.#compacted())
    else waiter.resolve(this.#answer(question, firstMatch))
  }

  #forget(waiter: Waiter): void {
    const { session, question, timer } = waiter
    timer.cancel()
    const ofSession = this.#bySession.get(session)
    if (ofSession?.get(question.watch) === waiter) ofSession.delete(question.watch)
    if (ofSession?.size === 0) this.#bySession.delete(session)
    const ofNamespace = this.#byNamespace.get(question.namespace)
    ofNamespace?.delete(waiter)
    if (ofNamespace?.size === 0) this.#byNamespace.delete(question.namespace)
  }

  #compacted(): WatchAnswer {
    return { revision: this.#log.appliedIndex, compacted: true, changes: [] }
  }

  /** Whole revisions from `from` on, as many as fit. */
  #answer({ namespace, prefix }: WatchQuestion, from: number): WatchAnswer {
    const changes: WatchAnswer['changes'] = []
    let bytes = 0
    let last = 0
    for (const change of this.#table.history.from(from)) {
      const { key, revision, after } = change
      if (change.namespace !== namespace || !key.startsWith(prefix)) continue
      if (bytes > PAGE_BYTES_MAX && revision !== last) return { revision: last, compacted: false, changes }
      last = revision
      bytes += Buffer.byteLength(key) + (after?.value.length ?? 0) + ITEM_OVERHEAD_BYTES
      if (after === undefined) changes.push({ key, revision })
      else changes.push({ key, revision, value: after.value, created: after.created, session: after.session })
    }
    return { revision: this.#log.appliedIndex, compacted: false, changes }
  }
}
