/**
 * One run of a plugin, from `apply` to the last disposer. It makes the `Kernel` object that the plugin sees and the
 * scope that owns everything made through it. The host decides when to start and stop; this file knows no states.
 */
import type { AwilixContainer } from 'awilix'
import type { Clock } from '../platform/clock.ts'
import type { Logger } from '../platform/logger.ts'
import { kernelError, messageOf } from './errors.ts'
import type { HookTree, HookRegistry, HookTaps } from './hook-registry.ts'
import { isPromise } from './hook.ts'
import type { Disposer } from './hook.ts'
import type { Manifest, Role } from './manifest.ts'
import type { PluginOwner } from './owner.ts'
import type { Kernel, PluginDefinition } from './plugin.ts'
import { registerValues, Scope, withDeadline } from './scope.ts'

/** Callbacks one plugin may give to onStart. */
const STARTERS_MAX = 100

export interface InstanceOptions {
  readonly manifest: Manifest
  readonly definition: PluginDefinition
  readonly config: unknown
  readonly owner: PluginOwner
  readonly role: Role
  readonly coreVersion: string
  readonly clock: Clock
  readonly logger: Logger
  readonly registry: HookRegistry<HookTree>
  readonly container: AwilixContainer
  /** Services of running plugins, by name; those required and those that merely exist. */
  readonly services: Readonly<Record<string, unknown>>
  readonly startWarnMs: number
  readonly startDeadlineMs: number
  readonly onDegraded: (reasons: readonly string[]) => void
}

type Starter = (signal: AbortSignal) => void | Promise<void>

export class PluginInstance {
  readonly scope: Scope
  /** What the plugin provides, filled while it starts. */
  readonly provided = new Map<string, unknown>()
  readonly #options: InstanceOptions
  readonly #abort = new AbortController()
  readonly #starters: Starter[] = []
  readonly #reasons = new Set<{ readonly reason: string }>()
  readonly #container: AwilixContainer
  #hasStarted = false

  constructor(options: InstanceOptions) {
    this.#options = options
    const { plugin } = options.owner
    this.scope = new Scope(options.clock, (name, error) =>
      options.logger.error(`plugin ${plugin} failed to undo "${name}": ${messageOf(error)}`, { plugin }),
    )
    this.#container = options.container.createScope()
    registerValues(this.#container, options.services)
  }

  get reasons(): readonly string[] {
    return [...this.#reasons].map(({ reason }) => reason)
  }

  /** apply(), then every onStart callback. Throws PLUGIN_APPLY, or PLUGIN_START for what a retry may heal. */
  async start(): Promise<void> {
    const { definition, config, manifest, clock, logger, startWarnMs, startDeadlineMs } = this.#options
    try {
      const returned: unknown = definition.apply(this.#kernel(), config as never)
      if (isPromise(returned)) {
        returned.then(undefined, () => {}) // told below; a second report as an unhandled rejection would end the process
        throw new Error(
          'apply() returned a promise; it must be synchronous, and I/O belongs in kernel.onStart()',
        )
      }
    } catch (error) {
      throw kernelError('PLUGIN_APPLY', `plugin ${manifest.name}: apply() failed: ${messageOf(error)}`, {
        cause: error,
      })
    }
    const warning = clock.setTimer(startWarnMs, () =>
      logger.warn(`plugin ${manifest.name} has been starting for ${startWarnMs} ms`, {
        plugin: manifest.name,
      }),
    )
    try {
      await withDeadline(clock, this.#startersOrAbort(), startDeadlineMs, 'start')
    } catch (error) {
      throw kernelError('PLUGIN_START', `plugin ${manifest.name}: start failed: ${messageOf(error)}`, {
        cause: error,
      })
    } finally {
      warning.cancel()
    }
    this.#hasStarted = true
    const missing = manifest.provides.filter((service) => !this.provided.has(service))
    if (missing.length > 0)
      throw kernelError(
        'PLUGIN_APPLY',
        `plugin ${manifest.name}: its manifest provides ${missing.join(', ')}, but kernel.provide() was not called for it`,
      )
  }

  /** Ends a start in progress: it fails at once, even if the plugin does not listen. Nothing when it runs already. */
  giveUp(): void {
    if (!this.#hasStarted) this.#abort.abort(this.#stopReason())
  }

  /** Aborts what still starts and undoes everything, newest first. Never rejects. */
  async stop(): Promise<void> {
    this.#abort.abort(this.#stopReason())
    await this.scope.close()
    this.provided.clear()
  }

  #stopReason(): Error {
    return kernelError('PLUGIN_STOPPED', `plugin ${this.#options.manifest.name} is stopping`)
  }

  #startersOrAbort(): Promise<void> {
    const { signal } = this.#abort
    return new Promise((resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true })
      this.#runStarters().then(resolve, reject)
    })
  }

  async #runStarters(): Promise<void> {
    for (const start of this.#starters) {
      if (this.#abort.signal.aborted) return
      await start(this.#abort.signal)
    }
  }

  #kernel(): Kernel {
    const { owner, role, coreVersion, registry, logger, clock, manifest } = this.#options
    const hooks = registry.tapsFor(owner, (dispose, name) => this.#ownTap(dispose, name))
    return Object.freeze({
      plugin: manifest.name,
      role,
      coreVersion,
      hooks: hooks as unknown as HookTaps,
      logger,
      clock: scopedClock(clock, this.scope, (error) => owner.reportFault('a timer', error)),
      onStart: (start: Starter) => this.#onStart(start),
      onStop: (stop: Disposer, options: { readonly deadlineMs?: number } = {}) => {
        assertFunction('kernel.onStop()', stop)
        return this.scope.own(stop, 'onStop callback', options.deadlineMs)
      },
      provide: (name: string, service: unknown) => this.#provide(name, service),
      require: <Service>(name: string) => this.#require(name) as Service,
      find: <Service>(name: string) => this.#container.resolve<Service>(name, { allowUnregistered: true }),
      degraded: (reason: string) => this.#degraded(reason),
    })
  }

  /** The tap exists already when the scope refuses it: undo it, then say why. */
  #ownTap(dispose: () => void, name: string): () => void {
    try {
      return this.scope.ownSync(dispose, name)
    } catch (error) {
      dispose()
      throw error
    }
  }

  #onStart(start: Starter): void {
    assertFunction('kernel.onStart()', start)
    this.scope.assertOpen('kernel.onStart()')
    if (this.#starters.length >= STARTERS_MAX)
      throw kernelError('PLUGIN_LIMIT', `kernel.onStart() was called more than ${STARTERS_MAX} times`)
    this.#starters.push(start)
  }

  #provide(name: string, service: unknown): void {
    const { manifest } = this.#options
    this.scope.assertOpen(`kernel.provide("${name}")`)
    if (!manifest.provides.includes(name))
      throw kernelError(
        'SERVICE_UNDECLARED',
        `plugin ${manifest.name} provides "${name}", but its manifest does not say so`,
      )
    this.provided.set(name, service)
  }

  #require(name: string): unknown {
    const { manifest } = this.#options
    if (!manifest.requires.includes(name))
      throw kernelError(
        'SERVICE_MISSING',
        `plugin ${manifest.name} requires "${name}", but its manifest does not say so`,
      )
    return this.#container.resolve(name)
  }

  #degraded(reason: string): () => void {
    const entry = { reason }
    const changed = (): void => this.#options.onDegraded(this.reasons)
    const release = this.scope.ownSync(() => {
      this.#reasons.delete(entry)
      if (!this.scope.isClosed) changed()
    }, 'degraded mark')
    this.#reasons.add(entry)
    changed()
    return release
  }
}

function assertFunction(what: string, value: unknown): void {
  if (typeof value !== 'function') throw kernelError('PLUGIN_APPLY', `${what}: expected a function`)
}

/** The process's clock, with timers that belong to a scope and callbacks whose errors stay with the plugin. */
function scopedClock(clock: Clock, scope: Scope, report: (error: unknown) => void): Clock {
  const guarded = (callback: () => void): void => {
    if (scope.isClosed) return
    try {
      const returned: unknown = callback()
      if (isPromise(returned)) returned.then(undefined, report)
    } catch (error) {
      report(error)
    }
  }
  return Object.freeze({
    nowMs: () => clock.nowMs(),
    bootMs: () => clock.bootMs(),
    wall: () => clock.wall(),
    defer: (callback: () => void) => clock.defer(() => guarded(callback)),
    setTimer: (delayMs: number, callback: () => void) => {
      scope.assertOpen('kernel.clock.setTimer()')
      const timer = clock.setTimer(delayMs, () => {
        cancel()
        guarded(callback)
      })
      const cancel = scope.ownSync(() => timer.cancel(), 'timer')
      return { cancel }
    },
  })
}
