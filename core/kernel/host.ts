/**
 * The plugin host of one process: finds, checks, imports, configures, starts and stops plugins, and does so again at
 * run time without touching the others (only those that require a service of the plugin stop with it).
 *
 * Promises: nothing of a plugin that is not enabled, not for this role, or incompatible is imported. Plugins start one
 * by one in the order of `order.ts` and stop in reverse. One operation at a time. A plugin that fails is FAILED or
 * RETRYING; only `onFailure: "abort-boot"` ends the process, and only at boot. A plugin in an endless loop cannot be
 * stopped in-process. States: `state.ts`.
 */
import { assert } from '../base/assert.ts'
import { CairnError, codeOf } from '../base/errors.ts'
import type { AwilixContainer } from 'awilix'
import { buildConfig, enabledPlugins, parseConfigText, schemaProblem, ConfigError } from './config.ts'
import type { Configuration, RawConfig } from './config.ts'
import type { ConfigSchema } from './config-format.ts'
import { kernelError, messageOf } from './errors.ts'
import type { kernelHooks } from './hooks.ts'
import type { HooksOf } from './hook-registry.ts'
import { PluginInstance } from './instance.ts'
import { Loader } from './loader.ts'
import { wantsAbortBoot } from './manifest.ts'
import { startOrder } from './order.ts'
import type { OrderNode } from './order.ts'
import { PluginOwner } from './owner.ts'
import { DEFAULT_LIMITS, pluginError, PluginRecord, wallMs } from './record.ts'
import type { AnyRegistry, HostLimits, HostOptions, PluginStatus } from './record.ts'
import { newKernelContainer, registerValues } from './scope.ts'
import { isRunning, mayFollow } from './state.ts'
import type { PluginState } from './state.ts'

/** Operations asked for by people and not begun yet. */
const PENDING_OPERATIONS_MAX = 64
const PLUGINS_MAX = 200

export class PluginHost<Core extends ConfigSchema = ConfigSchema> {
  readonly #options: HostOptions<Core>
  readonly #limits: HostLimits
  readonly #loader: Loader
  readonly #registry: AnyRegistry
  readonly #container: AwilixContainer
  readonly #records = new Map<string, PluginRecord>()
  #tail: Promise<unknown> = Promise.resolve()
  #pendingCount = 0
  #isStopping = false

  constructor(options: HostOptions<Core>) {
    this.#options = options
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits }
    this.#registry = options.registry as AnyRegistry
    this.#loader = new Loader(options)
    this.#container = newKernelContainer({})
  }

  /** Finds and imports plugins and builds the configuration. Throws ConfigError, CONFIG_READ or PLUGIN_BOOT. */
  async load(): Promise<Configuration<Core>> {
    assert(this.#records.size === 0, 'a plugin host loads once')
    const { configFile, source, enabledByDefault } = this.#options
    const raw = parseConfigText(configFile, source.readText(configFile))
    for (const entry of new Set(enabledPlugins(configFile, raw, enabledByDefault))) {
      const name = Loader.nameOf(entry)
      const other = this.#records.get(name)
      if (other !== undefined || this.#records.size >= PLUGINS_MAX)
        throw twoOfOneName(configFile, name, other?.entry ?? '', entry)
      await this.#prepareAtBoot(this.#newRecord(entry, name))
    }
    const loaded = this.#all().filter((record) => record.definition !== undefined)
    const configuration = this.#buildConfig(raw, loaded)
    for (const record of loaded) record.config = configuration.plugins.get(record.name)
    return configuration
  }

  /** Core services that plugins may name in `requires`. Between load() and start(), when the configuration is known. */
  registerServices(services: Readonly<Record<string, unknown>>): void {
    registerValues(this.#container, services)
  }

  /** Starts what was loaded. Throws PLUGIN_BOOT, with everything stopped again, when an essential plugin fails. */
  start(): Promise<void> {
    return this.#enqueue(async () => {
      await this.#settle()
      const failed = this.#all().find((record) => record.isEssential && !isRunning(record.state))
      if (failed === undefined) return
      await this.#stopAll()
      throw bootError(failed)
    })
  }

  /** Stops all plugins in reverse order. */
  stop(): Promise<void> {
    this.#isStopping = true
    return this.#enqueue(() => this.#stopAll())
  }

  list(): readonly PluginStatus[] {
    return this.#ordered().map((record) => record.status())
  }

  /** Commands of enabled plugins, from their manifests, for help and completion. Imports nothing. */
  commands(): readonly { readonly name: string; readonly description: string; readonly plugin: string }[] {
    return this.#all().flatMap((record) =>
      Object.entries(record.manifest?.commands ?? {}).map(([name, description]) => ({
        name,
        description,
        plugin: record.name,
      })),
    )
  }

  /** A service by name, from each running plugin that provides it, in start order. */
  services(name: string): readonly { readonly plugin: string; readonly service: unknown }[] {
    return this.#ordered().flatMap((record) => {
      const provided = isRunning(record.state) ? record.instance?.provided : undefined
      return provided?.has(name) === true ? [{ plugin: record.name, service: provided.get(name) }] : []
    })
  }

  /** Loads and starts a plugin by name, package or path. Until the process ends; plugins.enabled is not changed. */
  enable(entry: string): Promise<PluginStatus> {
    return this.#command(async () => {
      const name = Loader.nameOf(entry)
      const known = this.#records.get(name)
      if (known !== undefined && known.state !== 'DISABLED') return known.status()
      if (known === undefined) this.#loader.locate(entry) // a typing error must not leave a record behind
      if (this.#records.size >= PLUGINS_MAX)
        throw kernelError('PLUGIN_LIMIT', `more than ${PLUGINS_MAX} plugins`)
      const record = known ?? this.#newRecord(entry, name)
      await this.#replace(record)
      return record.status()
    })
  }

  /** Stops a plugin, and those that require it. Until the process ends. */
  disable(name: string): Promise<PluginStatus> {
    return this.#command(async () => {
      const record = this.#known(name)
      record.cancelRetry()
      if (isRunning(record.state)) await this.#stopOne(record, 'DISABLED', 'disabled by command', false)
      else if (record.state !== 'DISABLED') this.#setState(record, 'DISABLED', 'disabled by command')
      record.owner.release()
      return record.status()
    })
  }

  /** Loads the plugin's manifest, code and configuration anew. When they are not usable, the old code runs on. */
  reload(name: string): Promise<PluginStatus> {
    return this.#command(async () => {
      const record = this.#known(name)
      if (record.state === 'DISABLED')
        throw kernelError(
          'PLUGIN_UNKNOWN',
          `plugin ${name} is not enabled in this process: ${record.reason ?? ''}`,
          {
            next: `Enable it with: cairn plugin enable ${name}`,
          },
        )
      await this.#replace(record)
      return record.status()
    })
  }

  // ---- loading

  #newRecord(entry: string, name: string): PluginRecord {
    const { clock, logger } = this.#options
    const owner = new PluginOwner(name, clock, logger, this.#limits, {
      onFault: (where, error) => {
        record.lastError = pluginError(error, wallMs(clock))
        if (record.state === 'ACTIVE')
          this.#setState(record, 'DEGRADED', `failed in ${where}: ${messageOf(error)}`)
      },
      onCalm: () => this.#reconsider(record),
      onTrip: (where, error) => this.#trip(record, where, error),
    })
    const record = new PluginRecord(entry, name, owner)
    record.stateSinceMs = wallMs(clock)
    this.#records.set(name, record)
    return record
  }

  async #prepareAtBoot(record: PluginRecord): Promise<void> {
    try {
      await this.#prepare(record)
      if (record.definition !== undefined) this.#setState(record, 'WAITING', 'the process is starting')
    } catch (error) {
      this.#setFailed(record, error)
      const { role, source } = this.#options
      record.isEssential ||= record.located !== undefined && wantsAbortBoot(source, record.located.directory)
      if (record.isEssential && role !== 'cli') throw bootError(record)
    }
  }

  /** Manifest, role, code. Sets `definition` when the plugin is for this process. Throws on everything else. */
  async #prepare(record: PluginRecord): Promise<void> {
    const { role, command } = this.#options
    record.located = this.#loader.locate(record.entry)
    const manifest = this.#loader.manifest(record.located)
    record.manifest = manifest
    if (!manifest.roles.includes(role)) {
      record.reason = `made for ${manifest.roles.join(', ')}; this process is ${role}`
      return
    }
    if (role === 'cli' && (command === undefined || !Object.hasOwn(manifest.commands, command))) {
      record.reason = 'not needed for this command'
      return
    }
    record.isEssential = manifest.onFailure === 'abort-boot'
    record.generation += 1
    const definition = await this.#loader.importPlugin(record.located, manifest, record.generation)
    const problem = definition.config === undefined ? undefined : schemaProblem(definition.config)
    if (problem !== undefined)
      throw kernelError('PLUGIN_IMPORT', `plugin ${record.name}: its config schema is wrong: ${problem}`)
    record.definition = definition
  }

  #buildConfig(raw: RawConfig, loaded: readonly PluginRecord[]): Configuration<Core> {
    const { configFile, coreSchema, enabledByDefault, environment } = this.#options
    const isLoaded = new Set(loaded.map(({ name }) => name))
    return buildConfig({
      file: configFile,
      raw,
      core: coreSchema,
      sections: loaded.map(({ name, definition }) => ({ plugin: name, schema: definition?.config ?? {} })),
      ignored: [...this.#records.keys(), ...this.#loader.builtInNames()].filter(
        (name) => !isLoaded.has(name),
      ),
      enabledByDefault,
      environment: environment ?? {},
    })
  }

  /** Configuration of one plugin from the file as it is now; the rest of the file is not looked at. */
  #sectionOf(record: PluginRecord): unknown {
    const { configFile, source, environment } = this.#options
    const section = parseConfigText(configFile, source.readText(configFile))['plugins']
    const own =
      typeof section === 'object' && section !== null ? (section as RawConfig)[record.name] : undefined
    const built = buildConfig({
      file: configFile,
      raw: own === undefined ? {} : { plugins: { [record.name]: own } },
      core: {},
      sections: [{ plugin: record.name, schema: record.definition?.config ?? {} }],
      ignored: [],
      enabledByDefault: [],
      environment: environment ?? {},
    })
    return built.plugins.get(record.name)
  }

  /** Enable and reload: prepare first, so that a mistake in the new code leaves the old one running. */
  async #replace(record: PluginRecord): Promise<void> {
    const { manifest, definition, config } = record
    const wasRunning = isRunning(record.state)
    try {
      record.definition = undefined
      await this.#prepare(record)
      if (record.definition === undefined)
        throw kernelError(
          'PLUGIN_UNKNOWN',
          `plugin ${record.name} is not for this process: ${record.reason ?? ''}`,
          {
            next: 'Ask a process of one of its roles.',
          },
        )
      record.config = this.#sectionOf(record)
    } catch (error) {
      Object.assign(record, { manifest, definition, config })
      record.lastError = pluginError(error, wallMs(this.#options.clock))
      if (!wasRunning && codeOf(error) !== 'PLUGIN_UNKNOWN') this.#setFailed(record, error)
      throw error
    }
    record.cancelRetry()
    record.retryCount = 0
    if (wasRunning && isRunning(record.state)) await this.#stopOne(record, 'WAITING', 'reloading', true)
    else if (record.state !== 'WAITING') this.#setState(record, 'WAITING', 'about to start')
    await this.#settle()
  }

  // ---- starting

  /** Starts everything that waits and can, in order. */
  async #settle(): Promise<void> {
    for (const record of this.#ordered()) if (record.state === 'WAITING') await this.#startOne(record)
  }

  async #startOne(record: PluginRecord): Promise<void> {
    const { manifest, definition, owner } = record
    assert(
      manifest !== undefined && definition !== undefined,
      `plugin ${record.name} starts before it is loaded`,
    )
    if (this.#isStopping) return
    const taken = manifest.provides.find((service) => this.#container.hasRegistration(service))
    if (taken !== undefined) {
      const message = `plugin ${record.name} provides "${taken}", which is a service of the core`
      this.#setFailed(record, kernelError('PLUGIN_MANIFEST', message))
      return
    }
    const missing = manifest.requires.find((service) => !this.#isAvailable(service))
    if (missing !== undefined) {
      const reason = `requires the service "${missing}", which no running plugin provides`
      if (record.state !== 'WAITING') this.#setState(record, 'WAITING', reason)
      record.reason = reason
      return
    }
    const { clock, logger } = this.#options
    owner.reset()
    owner.muted = false
    const instance = new PluginInstance({
      ...this.#limits,
      ...this.#options,
      manifest,
      definition,
      config: record.config,
      owner,
      logger: logger.child(record.name),
      registry: this.#registry,
      container: this.#container,
      services: this.#serviceValues(),
      onDegraded: () => this.#reconsider(record),
    })
    record.instance = instance
    this.#setState(record, 'STARTING', undefined)
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
    this.#setState(record, 'ACTIVE', undefined)
    owner.release()
    this.#reconsider(record)
  }

  async #startFailed(record: PluginRecord, error: unknown): Promise<void> {
    const { clock } = this.#options
    const { startRetriesMax, retryDelayMs, retryDelayMsMax } = this.#limits
    record.lastError = pluginError(error, wallMs(clock))
    record.owner.holding = true
    this.#setState(record, 'STOPPING', messageOf(error))
    await record.instance?.stop()
    record.instance = undefined
    // A start that ran into its deadline may still be at work: beginning a second one beside it is not safe.
    const isHopeful = error instanceof CairnError && error.retryable && !isDeadline(error)
    if (!isHopeful || record.retryCount >= startRetriesMax) {
      this.#setState(record, 'FAILED', messageOf(error))
      return
    }
    const delayMs = Math.min(retryDelayMs * 2 ** record.retryCount, retryDelayMsMax)
    record.retryCount += 1
    this.#setState(record, 'RETRYING', `${messageOf(error)}; try ${record.retryCount} in ${delayMs} ms`)
    record.retry = clock.setTimer(delayMs, () =>
      this.#background(async () => {
        if (record.state !== 'RETRYING') return
        await this.#startOne(record)
        await this.#settle()
      }),
    )
  }

  // ---- stopping

  async #stopOne(record: PluginRecord, to: PluginState, reason: string, isHolding: boolean): Promise<void> {
    const provided = record.manifest?.provides ?? []
    for (const other of [...this.#ordered()].reverse()) {
      const needed = other.manifest?.requires.find((service) => provided.includes(service))
      if (other === record || needed === undefined || !isRunning(other.state)) continue
      await this.#stopOne(other, 'WAITING', `requires the service "${needed}" of plugin ${record.name}`, true)
    }
    this.#setState(record, 'STOPPING', reason)
    record.owner.holding = isHolding
    record.owner.reset()
    await record.instance?.stop()
    record.instance = undefined
    this.#setState(record, to, reason)
    if (!isHolding) record.owner.release()
  }

  async #stopAll(): Promise<void> {
    for (const record of [...this.#ordered()].reverse()) {
      record.cancelRetry()
      if (isRunning(record.state)) await this.#stopOne(record, 'DISABLED', 'the process is stopping', false)
      record.owner.reset()
      record.owner.release()
    }
    await this.#container.dispose()
  }

  #trip(record: PluginRecord, where: string, error: unknown): void {
    const { faultsPerWindowMax, faultWindowMs } = this.#limits
    const message =
      `plugin ${record.name} was stopped after ${faultsPerWindowMax} faults within ${faultWindowMs} ms, ` +
      `the last in ${where}: ${messageOf(error)}`
    record.lastError = pluginError(kernelError('PLUGIN_TRIPPED', message), wallMs(this.#options.clock))
    this.#background(async () => {
      if (isRunning(record.state) && record.owner.muted) await this.#stopOne(record, 'FAILED', message, true)
    })
  }

  // ---- helpers

  /** ACTIVE or DEGRADED, by recent faults and what the plugin says of itself. */
  #reconsider(record: PluginRecord): void {
    const [reason] = record.instance?.reasons ?? []
    if (record.state === 'ACTIVE' && reason !== undefined) this.#setState(record, 'DEGRADED', reason)
    else if (record.state === 'ACTIVE' && !record.owner.isCalm)
      this.#setState(record, 'DEGRADED', record.lastError?.message)
    else if (record.state === 'DEGRADED' && reason === undefined && record.owner.isCalm)
      this.#setState(record, 'ACTIVE', undefined)
    else if (record.state === 'DEGRADED' && reason !== undefined) record.reason = reason
  }

  #setFailed(record: PluginRecord, error: unknown): void {
    record.lastError = pluginError(error, wallMs(this.#options.clock))
    const isRefused = ['PLUGIN_INCOMPATIBLE', 'PLUGIN_MANIFEST'].includes(codeOf(error))
    this.#setState(record, isRefused ? 'INCOMPATIBLE' : 'FAILED', messageOf(error))
  }

  #setState(record: PluginRecord, to: PluginState, reason: string | undefined): void {
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
    for (const record of [...this.#ordered()].reverse())
      if (isRunning(record.state)) Object.assign(values, Object.fromEntries(record.instance?.provided ?? []))
    return values
  }

  #all(): readonly PluginRecord[] {
    return [...this.#records.values()]
  }

  /** Start order. Plugins in a circle come last, wait for each other forever, and say so. */
  #ordered(): readonly PluginRecord[] {
    const nodes = this.#all().map((record) => ({ ...orderNode(record), record }))
    const { ordered, circles } = startOrder(nodes)
    const records = ordered.map(({ record }) => record)
    records.forEach((record, rank) => {
      if (record.owner.rank === rank) return
      record.owner.rank = rank
      this.#registry.invalidateOrder()
    })
    for (const [name, circle] of circles) {
      const record = this.#known(name)
      records.push(record)
      if (record.state === 'WAITING')
        this.#setFailed(record, kernelError('PLUGIN_CYCLE', `circle of requirements: ${circle}`))
    }
    return records
  }

  #known(name: string): PluginRecord {
    const record = this.#records.get(name)
    if (record !== undefined) return record
    throw kernelError('PLUGIN_UNKNOWN', `there is no plugin "${name}" in this process`)
  }

  /** An operation asked for by a person: bounded, and refused while the process stops. */
  #command<T>(work: () => Promise<T>): Promise<T> {
    if (this.#isStopping) return Promise.reject(kernelError('CONTROL_BUSY', 'this process is stopping'))
    if (this.#pendingCount >= PENDING_OPERATIONS_MAX)
      return Promise.reject(
        kernelError('CONTROL_BUSY', `${PENDING_OPERATIONS_MAX} plugin operations are waiting already`),
      )
    return this.#enqueue(work)
  }

  #enqueue<T>(work: () => Promise<T>): Promise<T> {
    this.#pendingCount += 1
    const result = this.#tail.then(work).finally(() => (this.#pendingCount -= 1))
    this.#tail = result.then(
      () => undefined,
      () => undefined,
    )
    return result
  }

  /** Work that nobody waits for. What it throws is a bug, and must not vanish in a promise. */
  #background(work: () => Promise<void>): void {
    this.#enqueue(work).catch((error: unknown) =>
      this.#options.clock.defer(() => {
        throw error
      }),
    )
  }
}

function orderNode({ name, manifest }: PluginRecord): OrderNode {
  const { requires = [], provides = [], after = [] } = manifest ?? {}
  return { name, requires, provides, after }
}

function isDeadline(error: CairnError): boolean {
  return error.cause instanceof CairnError && error.cause.code === 'PLUGIN_DEADLINE'
}

function bootError(record: PluginRecord): CairnError {
  const why = record.lastError?.message ?? record.reason ?? 'it does not run'
  return kernelError(
    'PLUGIN_BOOT',
    `plugin ${record.name} is essential ("onFailure": "abort-boot"), and ${why}`,
  )
}

function twoOfOneName(file: string, name: string, first: string, second: string): ConfigError {
  const isTooMany = first === ''
  return new ConfigError(file, [
    {
      key: 'plugins.enabled',
      plugin: undefined,
      message: isTooMany
        ? `holds more than ${PLUGINS_MAX} plugins`
        : `${JSON.stringify(first)} and ${JSON.stringify(second)} are both named ${name}`,
      next: isTooMany ? 'Remove some' : 'Rename the folder of one of them',
    },
  ])
}
