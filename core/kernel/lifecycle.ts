/**
 * Starts and stops plugins and moves them between their states (`state.ts`). Start one by one in the order of
 * `order.ts`, stop in reverse; a plugin that requires a service stops and waits when its provider stops. Failures
 * retry with growing delays; too many faults trip. Not its business: finding, importing and configuring plugins, and
 * letting only one operation run at a time: the host does both, and calls this room's methods one after the other.
 */
import type { AwilixContainer } from 'awilix'
import { assert, present } from '../base/assert.ts'
import { CairnError, codeOf } from '../base/errors.ts'
import type { Clock } from '../platform/clock.ts'
import type { Logger } from '../platform/logger.ts'
import { kernelError, messageOf } from './errors.ts'
import type { HooksOf } from './hook-registry.ts'
import type { kernelHooks } from './hooks.ts'
import { PluginInstance } from './instance.ts'
import type { Role } from './manifest.ts'
import { startOrder } from './order.ts'
import type { OrderNode } from './order.ts'
import { pluginError, wallMs } from './record.ts'
import type { AnyRegistry, HostLimits, PluginRecord } from './record.ts'
import { isRunning, mayFollow } from './state.ts'
import type { PluginState } from './state.ts'

export interface LifecycleOptions {
  readonly role: Role
  readonly coreVersion: string
  readonly clock: Clock
  readonly logger: Logger
  readonly limits: HostLimits
  readonly registry: AnyRegistry
  /** Core services. */
  readonly container: AwilixContainer
  /** Runs work after the operation in progress. Nobody waits for it. */
  readonly background: (work: () => Promise<void>) => void
}

export class Lifecycle {
  readonly records = new Map<string, PluginRecord>()
  /** The process stops: start nothing any more. */
  isStopping = false
  readonly #options: LifecycleOptions
  readonly #registry: AnyRegistry
  readonly #container: AwilixContainer

  constructor(options: LifecycleOptions) {
    this.#options = options
    this.#registry = options.registry
    this.#container = options.container
  }

  // ---- starting

  /** Starts everything that waits and can, in order. */
  async settle(): Promise<void> {
    for (const record of this.ordered()) if (record.state === 'WAITING') await this.#startOne(record)
  }

  async #startOne(record: PluginRecord): Promise<void> {
    const { manifest, definition, owner } = record
    assert(
      manifest !== undefined && definition !== undefined,
      `plugin ${record.name} starts before it is loaded`,
    )
    if (this.isStopping) return
    const taken = manifest.provides.find((service) => this.#container.hasRegistration(service))
    if (taken !== undefined) {
      const message = `plugin ${record.name} provides "${taken}", which is a service of the core`
      this.setFailed(record, kernelError('PLUGIN_MANIFEST', message))
      return
    }
    const missing = manifest.requires.find((service) => !this.#isAvailable(service))
    if (missing !== undefined) {
      const reason = `requires the service "${missing}", which no running plugin provides`
      if (record.state !== 'WAITING') this.setState(record, 'WAITING', reason)
      record.reason = reason
      return
    }
    const { clock, logger } = this.#options
    owner.reset()
    owner.muted = false
    const instance = new PluginInstance({
      ...this.#options,
      ...this.#options.limits,
      manifest,
      definition,
      config: record.config,
      owner,
      logger: logger.child(record.name),
      registry: this.#registry,
      container: this.#container,
      services: this.#serviceValues(),
      onDegraded: () => this.reconsider(record),
    })
    record.instance = instance
    this.setState(record, 'STARTING', undefined)
    const beganMs = clock.nowMs()
    try {
      await instance.start()
      if (owner.muted)
        throw kernelError('PLUGIN_TRIPPED', `plugin ${record.name}: too many faults while starting`)
    } catch (error) {
      await this.#startFailed(record, error)
      return
    }
    record.startDurationMs = clock.nowMs() - beganMs
    record.retryCount = 0
    this.setState(record, 'ACTIVE', undefined)
    owner.release()
    this.reconsider(record)
  }

  async #startFailed(record: PluginRecord, error: unknown): Promise<void> {
    const { clock } = this.#options
    const { startRetriesMax, retryDelayMs, retryDelayMsMax } = this.#options.limits
    record.lastError = pluginError(error, wallMs(clock))
    record.owner.holding = true
    this.setState(record, 'STOPPING', messageOf(error))
    await record.instance?.stop()
    record.instance = undefined
    // A start that ran into its deadline may still be at work: beginning a second one beside it is not safe.
    const isHopeful = error instanceof CairnError && error.retryable && !isDeadline(error) && !this.isStopping
    if (!isHopeful || record.retryCount >= startRetriesMax) {
      this.setState(record, 'FAILED', messageOf(error))
      return
    }
    const delayMs = Math.min(retryDelayMs * 2 ** record.retryCount, retryDelayMsMax)
    record.retryCount += 1
    this.setState(record, 'RETRYING', `${messageOf(error)}; try ${record.retryCount} in ${delayMs} ms`)
    record.retry = clock.setTimer(delayMs, () =>
      this.#options.background(async () => {
        if (record.state !== 'RETRYING') return
        await this.#startOne(record)
        await this.settle()
      }),
    )
  }

  // ---- stopping

  async stopOne(record: PluginRecord, to: PluginState, reason: string, isHolding: boolean): Promise<void> {
    const provided = record.manifest?.provides ?? []
    for (const other of [...this.ordered()].reverse()) {
      const needed = other.manifest?.requires.find((service) => provided.includes(service))
      if (other === record || needed === undefined || !isRunning(other.state)) continue
      await this.stopOne(other, 'WAITING', `requires the service "${needed}" of plugin ${record.name}`, true)
    }
    this.setState(record, 'STOPPING', reason)
    record.owner.holding = isHolding
    record.owner.reset()
    await record.instance?.stop()
    record.instance = undefined
    this.setState(record, to, reason)
    if (!isHolding) record.owner.release()
  }

  async stopAll(): Promise<void> {
    for (const record of [...this.ordered()].reverse()) {
      record.cancelRetry()
      if (isRunning(record.state)) await this.stopOne(record, 'DISABLED', 'the process is stopping', false)
      record.owner.reset()
      record.owner.release()
    }
    await this.#container.dispose()
  }

  trip(record: PluginRecord, where: string, error: unknown): void {
    const { faultsPerWindowMax, faultWindowMs } = this.#options.limits
    const message =
      `plugin ${record.name} was stopped after ${faultsPerWindowMax} faults within ${faultWindowMs} ms, ` +
      `the last in ${where}: ${messageOf(error)}`
    record.lastError = pluginError(kernelError('PLUGIN_TRIPPED', message), wallMs(this.#options.clock))
    this.#options.background(async () => {
      if (isRunning(record.state) && record.owner.muted) await this.stopOne(record, 'FAILED', message, true)
    })
  }

  /** ACTIVE or DEGRADED, by recent faults and what the plugin says of itself. */
  reconsider(record: PluginRecord): void {
    const [reason] = record.instance?.reasons ?? []
    if (record.state === 'ACTIVE' && reason !== undefined) this.setState(record, 'DEGRADED', reason)
    else if (record.state === 'ACTIVE' && !record.owner.isCalm)
      this.setState(record, 'DEGRADED', record.lastError?.message)
    else if (record.state === 'DEGRADED' && reason === undefined && record.owner.isCalm)
      this.setState(record, 'ACTIVE', undefined)
    else if (record.state === 'DEGRADED' && reason !== undefined) record.reason = reason
  }

  setFailed(record: PluginRecord, error: unknown): void {
    record.lastError = pluginError(error, wallMs(this.#options.clock))
    const isRefused = ['PLUGIN_INCOMPATIBLE', 'PLUGIN_MANIFEST'].includes(codeOf(error))
    this.setState(record, isRefused ? 'INCOMPATIBLE' : 'FAILED', messageOf(error))
  }

  setState(record: PluginRecord, to: PluginState, reason: string | undefined): void {
    const from = record.state
    record.reason = reason
    if (from === to) return
    assert(mayFollow(from, to), `plugin ${record.name}: ${to} may not follow ${from}`)
    record.state = to
    record.stateSinceMs = wallMs(this.#options.clock)
    const { logger } = this.#options
    const text = `plugin ${record.name} is ${to}${reason === undefined ? '' : `: ${reason}`}`
    if (to === 'FAILED' || to === 'INCOMPATIBLE') logger.error(text, { plugin: record.name, state: to })
    else if (to === 'DEGRADED' || to === 'RETRYING') logger.warn(text, { plugin: record.name, state: to })
    else logger.info(text, { plugin: record.name, state: to })
    const hooks = this.#registry.hooks as { readonly plugin?: HooksOf<typeof kernelHooks>['plugin'] }
    hooks.plugin?.stateChanged.call({ plugin: record.name, from, to, reason })
  }

  #isAvailable(service: string): boolean {
    return this.#container.hasRegistration(service) || this.services(service).length > 0
  }

  #serviceValues(): Record<string, unknown> {
    const values: Record<string, unknown> = {}
    for (const record of [...this.ordered()].reverse())
      if (isRunning(record.state)) Object.assign(values, Object.fromEntries(record.instance?.provided ?? []))
    return values
  }

  all(): readonly PluginRecord[] {
    return [...this.records.values()]
  }

  /** Start order. Plugins in a circle come last, wait for each other forever, and say so. */
  ordered(): readonly PluginRecord[] {
    const nodes = this.all().map((record) => ({ ...orderNode(record), record }))
    const { ordered, circles } = startOrder(nodes)
    const records = ordered.map(({ record }) => record)
    records.forEach((record, rank) => {
      if (record.owner.rank === rank) return
      record.owner.rank = rank
      this.#registry.invalidateOrder()
    })
    for (const [name, circle] of circles) {
      const record = present(this.records.get(name), `plugin ${name} was just put in order`)
      records.push(record)
      if (record.state === 'WAITING')
        this.setFailed(record, kernelError('PLUGIN_CYCLE', `circle of requirements: ${circle}`))
    }
    return records
  }

  /** A service by name, from each running plugin that provides it, in start order. */
  services(name: string): readonly { readonly plugin: string; readonly service: unknown }[] {
    return this.ordered().flatMap((record) => {
      const provided = isRunning(record.state) ? record.instance?.provided : undefined
      return provided?.has(name) === true ? [{ plugin: record.name, service: provided.get(name) }] : []
    })
  }
}

function orderNode({ name, manifest }: PluginRecord): OrderNode {
  const { requires = [], provides = [], after = [] } = manifest ?? {}
  return { name, requires, provides, after }
}

function isDeadline(error: CairnError): boolean {
  return error.cause instanceof CairnError && error.cause.code === 'PLUGIN_DEADLINE'
}
