/**
 * One namespace of the replicated key-value store: what api.ts promises, over the calls of a session. A
 * watch is a listing, then one call after the other that waits for changes behind the revision it has: a lost
 * or doubled answer changes nothing, and when the server has forgotten what lies between, it lists again.
 */
import { CairnError } from '../base/errors.ts'
import {
  type KeyValueEntry as WireEntry,
  type KeyValueGuard as WireGuard,
  type KeyValueWrite as WireWrite,
  TRANSACTION_BYTES_MAX,
  VALUE_BYTES_MAX,
} from '../wire/messages/key-value.ts'
import type {
  KeyValue,
  KeyValueChange,
  KeyValueEntry,
  KeyValueEvent,
  KeyValueExpectation,
  KeyValueGuard,
  KeyValueOutcome,
  KeyValuePage,
  KeyValueWrite,
  KeyValueWriteOptions,
} from './api.ts'
import type { Result } from './session/call-table.ts'
import { asCairnError, overloaded } from './session/errors.ts'
import { LIST_ATTEMPTS_MAX, LIST_PAGE_ENTRIES, WATCH_WAIT_MS, WATCHES_MAX } from './session/limits.ts'
import type { Session } from './session/session.ts'

/** Shared by all namespaces of a client. */
export interface WatchNumbers {
  last: number
  running: number
}

export class ClientKeyValue implements KeyValue {
  readonly namespace: string
  readonly #session: Session
  readonly #watches: WatchNumbers

  constructor(session: Session, namespace: string, watches: WatchNumbers) {
    this.#session = session
    this.namespace = namespace
    this.#watches = watches
  }

  async get(key: string): Promise<KeyValueEntry | null> {
    const { entry } = await this.#session.call('kv.get', { namespace: this.namespace, key })
    return entry === undefined ? null : entryOf(entry)
  }

  async list(prefix = ''): Promise<{ revision: number; entries: KeyValueEntry[] }> {
    for (let attempt = 1; attempt <= LIST_ATTEMPTS_MAX; attempt++) {
      const listed = await this.#listOnce(prefix)
      if (listed !== null) return listed
    }
    throw overloaded(`changes below '${prefix}' of ${this.namespace} to list it`)
  }

  async listPage(
    prefix: string,
    options: { readonly after?: string; readonly limit?: number; readonly revision?: number } = {},
  ): Promise<KeyValuePage> {
    const { after = '', limit = LIST_PAGE_ENTRIES, revision } = options
    const answer = await this.#session.call('kv.list', {
      namespace: this.namespace,
      prefix,
      after,
      limit,
      ...(revision === undefined ? {} : { revision }),
    })
    return { ...answer, entries: answer.entries.map(entryOf) }
  }

  async put(key: string, value: Uint8Array, options: KeyValueWriteOptions = {}): Promise<number> {
    return (await this.transact([], [{ key, value, ...options }])).revision
  }

  async delete(key: string): Promise<number> {
    return (await this.transact([], [{ key, value: null }])).revision
  }

  async compareAndSet(
    key: string,
    expected: KeyValueExpectation,
    value: Uint8Array | null,
    options: KeyValueWriteOptions = {},
  ): Promise<KeyValueOutcome> {
    return await this.transact([{ key, expected }], [{ key, value, ...options }])
  }

  async transact(
    guards: readonly KeyValueGuard[],
    writes: readonly KeyValueWrite[],
  ): Promise<KeyValueOutcome> {
    const params = {
      namespace: this.namespace,
      guards: guards.map(wireGuard),
      writes: writes.map(wireWrite),
    }
    checkSize([...params.guards, ...params.writes])
    const { revision, failed, present, value } = await this.#session.mutate('kv.transact', params)
    if (failed === undefined) return { succeeded: true, revision }
    return {
      succeeded: false,
      revision,
      failedGuard: failed,
      present: present ?? [],
      value: value === undefined ? null : bufferOf(value),
    }
  }

  async *watch(
    prefix = '',
    { signal }: { readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<KeyValueEvent, void> {
    if (this.#watches.running >= WATCHES_MAX) throw overloaded('watches of the key-value store')
    this.#watches.running++
    const watch = ++this.#watches.last
    try {
      for (;;) {
        const listed = await unlessAborted(this.list(prefix), signal)
        if (listed === null) return
        yield { kind: 'state', ...listed }
        let after = listed.revision
        for (;;) {
          const answer = await unlessAborted(this.#changes(watch, prefix, after), signal)
          if (answer === null) return
          if (answer.compacted) break
          yield* eventsOf(answer)
          after = answer.revision
        }
      }
    } finally {
      this.#watches.running--
      if (signal?.aborted === true) this.#unwatch(watch)
    }
  }

  async #changes(watch: number, prefix: string, after: number): Promise<Result<'kv.watch'>> {
    const { namespace } = this
    for (;;) {
      try {
        return await this.#session.call('kv.watch', {
          watch,
          namespace,
          prefix,
          after,
          waitMs: WATCH_WAIT_MS,
        })
      } catch (error) {
        // hold_timeout is for operations; to wait is what a watch is for.
        if (asCairnError(error).code !== 'ETIMEDOUT') throw error
      }
    }
  }

  #unwatch(watch: number): void {
    this.#session.call('kv.unwatch', { watch }).catch(() => {
      // The client was closed: so was the session, and with it what waits there.
    })
  }

  /** Null: it took so long that the first page is no longer known. */
  async #listOnce(prefix: string): Promise<{ revision: number; entries: KeyValueEntry[] } | null> {
    const first = await this.listPage(prefix)
    const { revision } = first
    const entries = [...first.entries]
    let isEnd = first.end
    while (!isEnd) {
      try {
        const page = await this.listPage(prefix, { after: entries.at(-1)?.key ?? '', revision })
        entries.push(...page.entries)
        isEnd = page.end
      } catch (error) {
        if (asCairnError(error).code === 'COMPACTED') return null
        throw error
      }
    }
    return { revision, entries }
  }
}

/** The outcome, or null as soon as the signal aborts. */
function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T | null> {
  if (signal === undefined) return promise
  return new Promise((resolve, reject) => {
    const aborted = (): void => resolve(null)
    const settled = (): void => signal.removeEventListener('abort', aborted)
    if (signal.aborted) aborted()
    else signal.addEventListener('abort', aborted, { once: true })
    promise.then(resolve, reject).finally(settled).catch(reject)
  })
}

function* eventsOf({ changes }: Result<'kv.watch'>): Generator<KeyValueEvent, void> {
  let gathered: KeyValueChange[] = []
  for (const [index, change] of changes.entries()) {
    gathered.push(changeOf(change))
    if (changes[index + 1]?.revision === change.revision) continue
    yield { kind: 'changes', revision: change.revision, changes: gathered }
    gathered = []
  }
}

function changeOf(change: Result<'kv.watch'>['changes'][number]): KeyValueChange {
  const { key, revision, value, created = 0, session = 0 } = change
  if (value === undefined) return { kind: 'delete', key, revision }
  return { kind: 'put', ...entryOf({ key, value, revision, created, session }) }
}

function entryOf({ key, value, revision, created, session }: WireEntry): KeyValueEntry {
  return { key, value: bufferOf(value), revision, created, isBound: session !== 0 }
}

function bufferOf(value: Uint8Array): Buffer {
  return Buffer.from(value.buffer, value.byteOffset, value.byteLength)
}

function wireGuard({ key, expected }: KeyValueGuard): WireGuard {
  if (expected === 'absent') return { key, revision: 0 }
  return 'value' in expected ? { key, value: expected.value } : { key, revision: expected.revision }
}

function wireWrite({ key, value, bindToSession }: KeyValueWrite): WireWrite {
  if (value === null) return { key }
  return { key, value, ...(bindToSession === true ? { bind: true } : {}) }
}

/** The server checks it too; but what does not fit a message would never get there. */
function checkSize(items: readonly { readonly key: string; readonly value?: Uint8Array }[]): void {
  let bytes = 0
  for (const { key, value } of items) {
    if (value !== undefined && value.length > VALUE_BYTES_MAX) {
      throw new CairnError('TOO_LARGE', `the value of '${key}' has more than ${VALUE_BYTES_MAX} bytes`)
    }
    bytes += Buffer.byteLength(key) + (value?.length ?? 0)
  }
  if (bytes > TRANSACTION_BYTES_MAX) {
    throw new CairnError('TOO_LARGE', `the transaction has more than ${TRANSACTION_BYTES_MAX} bytes`)
  }
}
