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
import { Lifecycle } from './lifecycle.ts'
import { Loader } from './loader.ts'
import { wantsAbortBoot } from './manifest.ts'
import { PluginOwner } from './owner.ts'
import { DEFAULT_LIMITS, pluginError, PluginRecord, wallMs } from './record.ts'
import type { AnyRegistry, HostLimits, HostOptions, PluginStatus } from './record.ts'
import { newKernelContainer, registerValues } from './scope.ts'
import { isRunning } from './state.ts'

/** Operations asked for by people and not begun yet. */
const PENDING_OPERATIONS_MAX = 64
const PLUGINS_MAX = 200

export class PluginHost<Core extends ConfigSchema = ConfigSchema> {
  readonly #options: HostOptions<Core>
  readonly #limits: HostLimits
  readonly #loader: Loader
  readonly #container: AwilixContainer
  readonly #life: Lifecycle
  #tail: Promise<unknown> = Promise.resolve()
  #pendingCount = 0

  constructor(options: HostOptions<Core>) {
    this.#options = options
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits }
    this.#loader = new Loader(options)
    this.#container = newKernelContainer({})
    this.#life = new Lifecycle({
      role: options.role,
      coreVersion: options.coreVersion,
      clock: options.clock,
      logger: options.logger,
      limits: this.#limits,
      registry: options.registry as AnyRegistry,
      container: this.#container,
      background: (work) => this.#background(work),
    })
  }

  /** Finds and imports plugins and builds the configuration. Throws ConfigError, CONFIG_READ or PLUGIN_BOOT. */
  async load(): Promise<Configuration<Core>> {
    assert(this.#life.records.size === 0, 'a plugin host loads once')
    const { configFile, source, enabledByDefault } = this.#options
    const raw = parseConfigText(configFile, source.readText(configFile))
    for (const entry of new Set(enabledPlugins(configFile, raw, enabledByDefault))) {
      const name = Loader.nameOf(entry)
      const other = this.#life.records.get(name)
      if (other !== undefined || this.#life.records.size >= PLUGINS_MAX)
        throw twoOfOneName(configFile, name, other?.entry ?? '', entry)
      await this.#prepareAtBoot(this.#newRecord(entry, name))
    }
    const loaded = this.#life.all().filter((record) => record.definition !== undefined)
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
      await this.#life.settle()
      const failed = this.#life.all().find((record) => record.isEssential && !isRunning(record.state))
      if (failed === undefined) return
      await this.#life.stopAll()
      throw bootError(failed)
    })
  }

  /** Stops all plugins in reverse order. What is just starting is told to give up. */
  stop(): Promise<void> {
    this.#life.isStopping = true
    for (const record of this.#life.all()) record.instance?.giveUp()
    return this.#enqueue(() => this.#life.stopAll())
  }

  list(): readonly PluginStatus[] {
    return this.#life.ordered().map((record) => record.status())
  }

  /** Commands of enabled plugins, from their manifests, for help and completion. Imports nothing. */
  commands(): readonly { readonly name: string; readonly description: string; readonly plugin: string }[] {
    return this.#life.all().flatMap((record) =>
      Object.entries(record.manifest?.commands ?? {}).map(([name, description]) => ({
        name,
        description,
        plugin: record.name,
      })),
    )
  }

  /** A service by name, from each running plugin that provides it, in start order. */
  services(name: string): readonly { readonly plugin: string; readonly service: unknown }[] {
    return this.#life.services(name)
  }

  /**
   * Loads and starts a plugin by name, package or path. Until the process ends; plugins.enabled is not changed.
   * A plugin that is not for this process stays DISABLED, with the reason in its status.
   */
  enable(entry: string): Promise<PluginStatus> {
    return this.#command(async () => {
      const name = Loader.nameOf(entry)
      const known = this.#life.records.get(name)
      if (known !== undefined && known.state !== 'DISABLED') return known.status()
      if (known === undefined) this.#loader.locate(entry) // a typing error must not leave a record behind
      if (this.#life.records.size >= PLUGINS_MAX)
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
      if (isRunning(record.state)) await this.#life.stopOne(record, 'DISABLED', 'disabled by command', false)
      else if (record.state !== 'DISABLED') this.#life.setState(record, 'DISABLED', 'disabled by command')
      record.owner.release()
      return record.status()
    })
  }

  /** Loads the plugin's manifest, code and configuration anew. When they are not usable, the old code runs on. */
  reload(name: string): Promise<PluginStatus> {
    return this.#command(async () => {
      const record = this.#known(name)
      if (record.state === 'DISABLED') {
        if (record.manifest?.roles.includes(this.#options.role) === false) return record.status()
        throw kernelError(
          'PLUGIN_UNKNOWN',
          `plugin ${name} is disabled in this process: ${record.reason ?? ''}`,
          {
            next: `Enable it with: cairn plugin enable ${name}`,
          },
        )
      }
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
          this.#life.setState(record, 'DEGRADED', `failed in ${where}: ${messageOf(error)}`)
      },
      onCalm: () => this.#life.reconsider(record),
      onTrip: (where, error) => this.#life.trip(record, where, error),
    })
    const record = new PluginRecord(entry, name, owner)
    record.stateSinceMs = wallMs(clock)
    this.#life.records.set(name, record)
    return record
  }

  async #prepareAtBoot(record: PluginRecord): Promise<void> {
    try {
      await this.#prepare(record)
      if (record.definition !== undefined) this.#life.setState(record, 'WAITING', 'the process is starting')
    } catch (error) {
      this.#life.setFailed(record, error)
      const { role, source } = this.#options
      record.isEssential ||= record.located !== undefined && wantsAbortBoot(source, record.located.directory)
      if (record.isEssential && role !== 'cli') throw bootError(record)
    }
  }

  /** Manifest, role, code. Sets `definition` when the plugin is for this process. Throws on everything else. */
  async #prepare(record: PluginRecord): Promise<void> {
    const { role, command, taps = [] } = this.#options
    record.located = this.#loader.locate(record.entry)
    const manifest = this.#loader.manifest(record.located)
    record.manifest = manifest
    if (!manifest.roles.includes(role)) {
      record.reason = `made for ${manifest.roles.join(', ')}; this process is ${role}`
      return
    }
    const isOfCommand = command !== undefined && Object.hasOwn(manifest.commands, command)
    if (role === 'cli' && !isOfCommand && !manifest.taps.some((hook) => taps.includes(hook))) {
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
      ignored: [...this.#life.records.keys(), ...this.#loader.builtInNames()].filter(
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
      if (record.definition === undefined) {
        if (!wasRunning) return // the reason says which processes it is for
        throw kernelError(
          'PLUGIN_UNKNOWN',
          `plugin ${record.name} is no longer for this process: ${record.reason ?? ''}`,
        )
      }
      record.config = this.#sectionOf(record)
    } catch (error) {
      Object.assign(record, { manifest, definition, config })
      record.lastError = pluginError(error, wallMs(this.#options.clock))
      if (!wasRunning && codeOf(error) !== 'PLUGIN_UNKNOWN') this.#life.setFailed(record, error)
      throw error
    }
    record.cancelRetry()
    record.retryCount = 0
    if (wasRunning && isRunning(record.state)) await this.#life.stopOne(record, 'WAITING', 'reloading', true)
    else if (record.state !== 'WAITING') this.#life.setState(record, 'WAITING', 'about to start')
    await this.#life.settle()
  }

  #known(name: string): PluginRecord {
    const record = this.#life.records.get(name)
    if (record !== undefined) return record
    throw kernelError('PLUGIN_UNKNOWN', `there is no plugin "${name}" in this process`)
  }

  /** An operation asked for by a person: bounded, and refused while the process stops. */
  #command<T>(work: () => Promise<T>): Promise<T> {
    if (this.#life.isStopping) return Promise.reject(kernelError('CONTROL_BUSY', 'this process is stopping'))
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
