/** For the kernel's own tests: a clock moved by hand, a log that is kept, plugins in memory, a host around them. */
import type { Clock, Timer, WallTime } from '../platform/clock.ts'
import type { LogFields, Logger } from '../platform/logger.ts'
import type { ConfigSchema } from './config-format.ts'
import { kernelHooks } from './hooks.ts'
import { HookRegistry } from './hook-registry.ts'
import { PluginHost } from './host.ts'
import type { PluginDefinition } from './plugin.ts'
import type { HostOptions } from './record.ts'
import type { ImportRequest, PluginSource } from './source.ts'

export class ManualClock implements Clock {
  #nowMs = 0
  readonly #timers = new Set<{ readonly atMs: number; readonly callback: () => void }>()

  get timerCount(): number {
    return this.#timers.size
  }

  nowMs(): number {
    return this.#nowMs
  }

  bootMs(): number {
    return this.#nowMs
  }

  wall(): WallTime {
    return { seconds: Math.floor(this.#nowMs / 1000), nanoseconds: (this.#nowMs % 1000) * 1e6 }
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    const timer = { atMs: this.#nowMs + delayMs, callback }
    this.#timers.add(timer)
    return { cancel: () => this.#timers.delete(timer) }
  }

  defer(callback: () => void): void {
    queueMicrotask(callback)
  }

  /** Moves time and runs what falls due, in order. */
  advance(byMs: number): void {
    const untilMs = this.#nowMs + byMs
    for (;;) {
      const due = [...this.#timers].filter(({ atMs }) => atMs <= untilMs).sort((a, b) => a.atMs - b.atMs)[0]
      if (due === undefined) break
      this.#timers.delete(due)
      this.#nowMs = due.atMs
      due.callback()
    }
    this.#nowMs = untilMs
  }
}

export class MemoryLogger implements Logger {
  readonly lines: string[]

  constructor(lines: string[] = []) {
    this.lines = lines
  }

  debug(message: string, _fields?: LogFields): void {
    this.lines.push(`debug ${message}`)
  }
  info(message: string): void {
    this.lines.push(`info ${message}`)
  }
  warn(message: string): void {
    this.lines.push(`warn ${message}`)
  }
  error(message: string): void {
    this.lines.push(`error ${message}`)
  }
  child(): Logger {
    return this
  }
}

export interface MemoryPlugin {
  /** The `cairn` block; engines and roles are filled in. */
  cairn?: Record<string, unknown>
  definition?: PluginDefinition
  /** Thrown by the import instead. */
  importError?: Error
}

/** Plugins of ours in the folder /plugins, and one configuration file, all in memory. */
export class MemorySource implements PluginSource {
  readonly plugins = new Map<string, MemoryPlugin>()
  readonly imports: ImportRequest[] = []
  config: unknown = {}

  readText(path: string): string | undefined {
    if (path === '/etc/cairn.json')
      return typeof this.config === 'string' ? this.config : JSON.stringify(this.config)
    const plugin = this.plugins.get(/^\/plugins\/([^/]+)\/package\.json$/.exec(path)?.[1] ?? '')
    if (plugin === undefined) return undefined
    const cairn = { engines: { core: '^1.0.0' }, roles: ['client'], ...plugin.cairn }
    return JSON.stringify({ name: 'x', version: '2.3.4', exports: './index.js', cairn })
  }

  realDirectory(path: string): string | undefined {
    return this.plugins.has(path.replace('/plugins/', '')) ? path : undefined
  }

  listDirectories(): readonly string[] {
    return [...this.plugins.keys()]
  }

  fileExists(): boolean {
    return true
  }

  resolvePath(base: string, path: string): string {
    if (path.startsWith('/')) return path
    return path === '..' ? base.replace(/\/[^/]*$/, '') || '/' : `${base}/${path.replace(/^\.\//, '')}`
  }

  async importModule(request: ImportRequest): Promise<Readonly<Record<string, unknown>>> {
    this.imports.push(request)
    const plugin = this.plugins.get(request.directory.replace('/plugins/', ''))
    if (plugin?.importError !== undefined) throw plugin.importError
    return { default: plugin?.definition }
  }

  release(): void {}
}

export interface Fixture {
  readonly clock: ManualClock
  readonly logger: MemoryLogger
  readonly source: MemorySource
  readonly registry: HookRegistry<typeof kernelHooks>
  readonly host: PluginHost
  /** "plugin FROM>TO" of every change of state. */
  readonly changes: string[]
  state(name: string): string | undefined
}

export function fixture(
  plugins: Readonly<Record<string, MemoryPlugin>>,
  options: Partial<HostOptions<ConfigSchema>> = {},
): Fixture {
  const clock = new ManualClock()
  const logger = new MemoryLogger()
  const source = new MemorySource()
  for (const [name, plugin] of Object.entries(plugins)) source.plugins.set(name, { ...plugin })
  source.config = { plugins: { enabled: Object.keys(plugins) } }
  const registry = new HookRegistry(kernelHooks, clock)
  const changes: string[] = []
  const watcher = {
    plugin: 'test',
    rank: -1,
    holding: false,
    muted: false,
    held: new Set<() => void>(),
    reportFault() {},
  }
  registry.hooks.plugin.stateChanged.tap(watcher, ({ plugin, from, to }) => {
    changes.push(`${plugin} ${from}>${to}`)
  })
  const host = new PluginHost({
    role: 'client',
    coreVersion: '1.2.3',
    coreSchema: {},
    configFile: '/etc/cairn.json',
    enabledByDefault: [],
    builtInDirectory: '/plugins',
    baseDirectories: ['/etc'],
    source,
    clock,
    logger,
    registry,
    ...options,
  })
  const state = (name: string) => host.list().find((status) => status.name === name)?.state
  return { clock, logger, source, registry, host, changes, state }
}

/** Lets promises that are ready run, until `condition` holds; fails after many turns instead of waiting. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  for (let turn = 0; turn < 10_000; turn++) {
    if (condition()) return
    await Promise.resolve()
  }
  throw new Error(`never came: ${what}`)
}
