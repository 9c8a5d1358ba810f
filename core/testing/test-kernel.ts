/**
 * A plugin host for the tests of a plugin: the real host, plugins in memory, time moved by hand.
 *
 *   const kernel = await startTestKernel({ plugins: { hello: { definition: hello } } })
 *   assert.equal(kernel.state('hello'), 'ACTIVE')
 *   await kernel.clock.advance(3_600_000)
 *   await kernel.stop()
 *
 * What the host does not do here: read packages from disk, transpile. Plugins are given as they are imported.
 */
import { HookRegistry } from '../kernel/hook-registry.ts'
import { kernelHooks } from '../kernel/hooks.ts'
import { PluginHost } from '../kernel/host.ts'
import type { Role } from '../kernel/manifest.ts'
import type { Kernel, PluginDefinition } from '../kernel/plugin.ts'
import type { ConfigSchema } from '../kernel/config-format.ts'
import { MemoryLogger, MemorySource } from '../kernel/test-support.ts'
import { SimulatedClock } from './simulation/simulated-clock.ts'

const CORE_VERSION = '1.0.0'
const CALL_LIMIT_MS = 600_000

export interface TestPlugin {
  /** What the plugin's module exports as default. */
  readonly definition: { readonly config?: ConfigSchema; apply(kernel: Kernel, config: never): void }
  /** The `cairn` block of its package.json; engines and role are filled in. */
  readonly manifest?: Readonly<Record<string, unknown>>
}

export interface TestKernelOptions {
  readonly plugins: Readonly<Record<string, TestPlugin>>
  /** Default: client. */
  readonly role?: Role
  /** cairn.json: `{ plugins: { hello: { greeting: 'Hi' } } }`. All plugins given are enabled. */
  readonly config?: { readonly plugins?: Readonly<Record<string, unknown>> }
  /** Services of core that the plugins name in `requires`. */
  readonly services?: Readonly<Record<string, unknown>>
}

export interface TestKernel {
  /** Virtual: `await clock.advance(1000)`. */
  readonly clock: SimulatedClock
  /** What was logged: "info message". */
  readonly logLines: readonly string[]
  /** Fires hooks as a room of core does: `hooks.health.collect.call()`. */
  readonly hooks: HookRegistry<typeof kernelHooks>['hooks']
  readonly host: PluginHost
  /** ACTIVE, DEGRADED, FAILED, …; undefined: no such plugin. */
  state(plugin: string): string | undefined
  /** Starts a plugin's code anew, as `cairn plugin reload` does. */
  reload(plugin: string): Promise<void>
  stop(): Promise<void>
}

/** Starts the plugins. Rejects as the host does: wrong configuration, a plugin that aborts the boot. */
export async function startTestKernel(options: TestKernelOptions): Promise<TestKernel> {
  const clock = new SimulatedClock()
  const logger = new MemoryLogger()
  const source = new MemorySource()
  const role = options.role ?? 'client'
  for (const [name, { definition, manifest }] of Object.entries(options.plugins))
    source.plugins.set(name, {
      definition: definition as PluginDefinition,
      cairn: { roles: [role], ...manifest },
    })
  source.config = { plugins: { ...options.config?.plugins, enabled: Object.keys(options.plugins) } }
  const registry = new HookRegistry(kernelHooks, clock)
  const host = new PluginHost({
    role,
    coreVersion: CORE_VERSION,
    coreSchema: {},
    configFile: '/etc/cairn.json',
    enabledByDefault: [],
    builtInDirectory: '/plugins',
    baseDirectories: ['/etc'],
    source,
    clock,
    logger,
    registry,
  })
  await clock.settled(host.load(), CALL_LIMIT_MS)
  host.registerServices(options.services ?? {})
  await clock.settled(host.start(), CALL_LIMIT_MS)
  return {
    clock,
    logLines: logger.lines,
    hooks: registry.hooks,
    host,
    state: (plugin) => host.list().find(({ name }) => name === plugin)?.state,
    reload: async (plugin) => {
      await clock.settled(host.reload(plugin), CALL_LIMIT_MS)
    },
    stop: () => clock.settled(host.stop(), CALL_LIMIT_MS),
  }
}
