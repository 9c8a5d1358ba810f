/**
 * What a plugin owns while it runs. Disposers run strictly last in, first out, one after the other, each with
 * a deadline: one that hangs or throws is reported and the next still runs. (awilix's own dispose() runs all at
 * once and skips child scopes, so the container is only used to resolve.)
 */
import { asValue, createContainer, InjectionMode } from 'awilix'
import type { AwilixContainer } from 'awilix'
import type { Clock, Timer } from '../platform/clock.ts'
import { kernelError } from './errors.ts'
import { isPromise } from './hook.ts'
import type { Disposer } from './hook.ts'

/** How long one disposer may take. */
export const DISPOSER_DEADLINE_MS = 10_000
/** What one plugin may own at a time: taps, timers, services. More is a leak in the plugin. */
export const DISPOSERS_PER_SCOPE_MAX = 10_000

interface Owned {
  readonly name: string
  readonly dispose: Disposer
  readonly deadlineMs: number
}

export type ScopeReport = (name: string, error: unknown) => void

export class Scope {
  readonly #clock: Clock
  readonly #report: ScopeReport
  /** In the order of adding (a Set keeps it), so the end is the newest. */
  readonly #owned = new Set<Owned>()
  #closing: Promise<void> | undefined

  constructor(clock: Clock, report: ScopeReport) {
    this.#clock = clock
    this.#report = report
  }

  get size(): number {
    return this.#owned.size
  }

  get isClosed(): boolean {
    return this.#closing !== undefined
  }

  /** Throws when the scope is closed or full; what was just made must then be undone by the caller. */
  assertOpen(what: string): void {
    if (this.isClosed) throw kernelError('PLUGIN_STOPPED', `${what}: the plugin is stopped or stopping`)
    if (this.#owned.size >= DISPOSERS_PER_SCOPE_MAX)
      throw kernelError('PLUGIN_LIMIT', `${what}: the plugin already owns ${DISPOSERS_PER_SCOPE_MAX} things`)
  }

  /** Takes over a disposer. The returned function disposes early (once) and forgets it. */
  own(dispose: Disposer, name: string, deadlineMs: number = DISPOSER_DEADLINE_MS): Disposer {
    this.assertOpen(name)
    const entry: Owned = { name, dispose, deadlineMs }
    this.#owned.add(entry)
    return () => (this.#owned.delete(entry) ? dispose() : undefined)
  }

  /** As `own`, for disposers that are synchronous and cheap (taps, timers). */
  ownSync(dispose: () => void, name: string): () => void {
    this.assertOpen(name)
    const entry: Owned = { name, dispose, deadlineMs: DISPOSER_DEADLINE_MS }
    this.#owned.add(entry)
    return () => {
      if (this.#owned.delete(entry)) dispose()
    }
  }

  /** Disposes of everything; never rejects. Calling it again waits for the same close. */
  close(): Promise<void> {
    this.#closing ??= this.#closeAll()
    return this.#closing
  }

  async #closeAll(): Promise<void> {
    // One pass is enough: own() refuses as soon as #closing is set, which is before the first await.
    const entries = [...this.#owned].reverse()
    this.#owned.clear()
    await Promise.resolve()
    for (const entry of entries) {
      try {
        const pending: void | PromiseLike<void> = entry.dispose()
        if (isPromise(pending)) await withDeadline(this.#clock, pending, entry.deadlineMs, entry.name)
      } catch (error) {
        this.#report(entry.name, error)
      }
    }
  }
}

/** Waits for `work` at most `deadlineMs`; late results are dropped, late errors too. */
export function withDeadline<T>(
  clock: Clock,
  work: PromiseLike<T>,
  deadlineMs: number,
  name: string,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer: Timer = clock.setTimer(deadlineMs, () =>
      reject(kernelError('PLUGIN_DEADLINE', `${name}: not done within ${deadlineMs} ms`)),
    )
    work.then(
      (value) => {
        timer.cancel()
        resolve(value)
      },
      (error: unknown) => {
        timer.cancel()
        reject(error)
      },
    )
  })
}

/** The container of a process: core services by name. Each start of a plugin gets a child of it. */
export function newKernelContainer(services: Readonly<Record<string, unknown>>): AwilixContainer {
  const container = createContainer({ strict: true, injectionMode: InjectionMode.PROXY })
  registerValues(container, services)
  return container
}

export function registerValues(
  container: AwilixContainer,
  services: Readonly<Record<string, unknown>>,
): void {
  for (const [name, service] of Object.entries(services)) container.register(name, asValue(service))
}
