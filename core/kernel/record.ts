/** What the host knows about one plugin, its options, and what it shows of a plugin to people. */
import { CairnError, codeOf } from '../base/errors.ts'
import type { Clock, Timer } from '../platform/clock.ts'
import type { Logger } from '../platform/logger.ts'
import type { ConfigSchema } from './config-format.ts'
import { messageOf } from './errors.ts'
import type { HookRegistry, HookTree } from './hook-registry.ts'
import type { PluginInstance } from './instance.ts'
import type { LocatedPlugin, PluginOrigin } from './loader.ts'
import type { Manifest, Role } from './manifest.ts'
import type { FaultLimits, PluginOwner } from './owner.ts'
import type { PluginDefinition } from './plugin.ts'
import type { PluginSource } from './source.ts'
import type { PluginState } from './state.ts'

export interface HostLimits extends FaultLimits {
  readonly startWarnMs: number
  readonly startDeadlineMs: number
  readonly startRetriesMax: number
  readonly retryDelayMs: number
  readonly retryDelayMsMax: number
}

export const DEFAULT_LIMITS: HostLimits = {
  startWarnMs: 10_000,
  startDeadlineMs: 60_000,
  startRetriesMax: 5,
  retryDelayMs: 1000,
  retryDelayMsMax: 60_000,
  faultsPerWindowMax: 5,
  faultWindowMs: 60_000,
}

export interface HostOptions<Core extends ConfigSchema> {
  readonly role: Role
  /** Role `cli` only: the command being run. Only the plugin whose manifest names it is imported. */
  readonly command?: string
  /** Role `cli` only: hooks that will be fired. Plugins whose manifest names one in `taps` are imported too. */
  readonly taps?: readonly string[]
  readonly coreVersion: string
  readonly coreSchema: Core
  /** Absolute path of cairn.json; it need not exist. */
  readonly configFile: string
  readonly enabledByDefault: readonly string[]
  readonly environment?: Readonly<Record<string, string | undefined>>
  /** Folder of the plugins of ours. */
  readonly builtInDirectory: string
  /** Relative plugin paths are seen from the first; packages are searched from each upwards. */
  readonly baseDirectories: readonly string[]
  readonly source: PluginSource
  readonly clock: Clock
  readonly logger: Logger
  /** A HookRegistry of the hooks this process fires, whichever they are. */
  readonly registry: Pick<AnyRegistry, 'tapCount' | 'invalidateOrder'>
  readonly limits?: Partial<HostLimits>
}

export interface PluginError {
  readonly code: string
  readonly message: string
  readonly next: string | undefined
  /** Wall clock, milliseconds since 1970. */
  readonly atMs: number
}

/** One line of `cairn plugin list --json`. */
export interface PluginStatus {
  readonly name: string
  readonly version: string
  readonly description: string
  readonly origin: PluginOrigin | 'unknown'
  readonly directory: string | undefined
  readonly state: PluginState
  /** Why it is in this state, one sentence. */
  readonly reason: string | undefined
  /** Wall clock of the last change of state, milliseconds since 1970. */
  readonly stateSinceMs: number
  /** How long the last successful start took. */
  readonly startDurationMs: number | undefined
  readonly lastError: PluginError | undefined
  readonly faultCount: number
  /** 1 for the code loaded first, one more at every reload. */
  readonly generation: number
  readonly roles: readonly Role[]
  readonly commands: readonly string[]
  readonly requires: readonly string[]
  readonly provides: readonly string[]
  readonly privileges: readonly string[]
}

export class PluginRecord {
  readonly entry: string
  readonly name: string
  readonly owner: PluginOwner
  located: LocatedPlugin | undefined
  manifest: Manifest | undefined
  definition: PluginDefinition | undefined
  config: unknown
  instance: PluginInstance | undefined
  state: PluginState = 'DISABLED'
  reason: string | undefined
  stateSinceMs = 0
  startDurationMs: number | undefined
  lastError: PluginError | undefined
  generation = 0
  retryCount = 0
  retry: Timer | undefined
  /** Not to run without it at boot. */
  isEssential = false

  constructor(entry: string, name: string, owner: PluginOwner) {
    this.entry = entry
    this.name = name
    this.owner = owner
  }

  cancelRetry(): void {
    this.retry?.cancel()
    this.retry = undefined
  }

  status(): PluginStatus {
    const { manifest, located } = this
    return {
      name: this.name,
      version: manifest?.version ?? '',
      description: manifest?.description ?? '',
      origin: located?.origin ?? 'unknown',
      directory: located?.directory,
      state: this.state,
      reason: this.reason,
      stateSinceMs: this.stateSinceMs,
      startDurationMs: this.startDurationMs,
      lastError: this.lastError,
      faultCount: this.owner.faultCount,
      generation: this.generation,
      roles: manifest?.roles ?? [],
      commands: Object.keys(manifest?.commands ?? {}),
      requires: manifest?.requires ?? [],
      provides: manifest?.provides ?? [],
      privileges: manifest?.privileges ?? [],
    }
  }
}

export type AnyRegistry = HookRegistry<HookTree>

export function pluginError(error: unknown, atMs: number): PluginError {
  const next = error instanceof CairnError ? error.next : undefined
  return { code: codeOf(error), message: messageOf(error), next, atMs }
}

export function wallMs(clock: Clock): number {
  const { seconds, nanoseconds } = clock.wall()
  return seconds * 1000 + Math.floor(nanoseconds / 1e6)
}
