/**
 * What a plugin author writes against. Exported to the world by index.ts, so every change here is a change of the
 * public surface. Nothing in this file runs anything: importing it costs a plugin nothing.
 */
import type { Clock } from '../platform/clock.ts'
import type { Logger } from '../platform/logger.ts'
import type { ConfigOf, ConfigSchema } from './config-format.ts'
import type { HookTaps } from './hook-registry.ts'
import type { Disposer } from './hook.ts'
import type { Role } from './manifest.ts'

/** Services by name; extended by declaration where a service is defined, so that `require` is typed. */
export interface KernelServices {}

/** The kernel as one plugin sees it. Everything made through it is undone when the plugin stops. */
export interface Kernel {
  /** Name of the plugin: its folder and its config key. */
  readonly plugin: string
  readonly role: Role
  readonly coreVersion: string
  readonly hooks: HookTaps
  readonly logger: Logger
  /** Time. Timers are cancelled when the plugin stops; an error in a callback counts as a fault of the plugin. */
  readonly clock: Clock

  /** Called once after `apply`, in the order of registration. `signal` aborts when the plugin must give up or stop. */
  onStart(start: (signal: AbortSignal) => void | Promise<void>): void
  /**
   * Undoes something; last in, first out. May be called at any time while the plugin runs, best right after the
   * thing to undo was made. The returned function undoes it now, once.
   */
  onStop(stop: Disposer, options?: { readonly deadlineMs?: number }): Disposer
  /** Offers a service that the manifest names in `provides`. At the latest when `onStart` ends. */
  provide<Name extends string>(
    name: Name,
    service: Name extends keyof KernelServices ? KernelServices[Name] : unknown,
  ): void
  /** A service that the manifest names in `requires`. Throws SERVICE_MISSING otherwise. */
  require<Name extends keyof KernelServices>(name: Name): KernelServices[Name]
  require<Service = unknown>(name: string): Service
  /** A service that may be absent; name its provider in `after`. */
  find<Service = unknown>(name: string): Service | undefined
  /** Marks the plugin DEGRADED with a reason until the returned function is called. */
  degraded(reason: string): () => void
}

export interface PluginDefinition<Schema extends ConfigSchema = ConfigSchema> {
  /** Keys under `plugins.NAME` in cairn.json. */
  readonly config?: Schema
  /** Synchronous: tap hooks and register callbacks. No I/O here; that belongs in `onStart`. */
  apply(kernel: Kernel, config: ConfigOf<Schema>): void
}

/** Gives `apply` the types of the config schema. Returns what it gets. */
export function definePlugin<const Schema extends ConfigSchema = Record<never, never>>(
  definition: PluginDefinition<Schema>,
): PluginDefinition<Schema> {
  return definition
}
