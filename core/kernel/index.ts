/** `@cairn/core/plugin`: the public entry point for plugin authors. See docs/plugins.md and docs/hooks.md. */
export { definePlugin } from './plugin.ts'
export type { Kernel, KernelServices, PluginDefinition } from './plugin.ts'
export type { ConfigFormat, ConfigLeaf, ConfigOf, ConfigSchema, HostPort } from './config-format.ts'
export type {
  AttributedDenial,
  Collected,
  Denial,
  Disposer,
  HookKind,
  HookMode,
  TapFunction,
  TapOptions,
} from './hook.ts'
export type { HookDefinitions, HookTaps, TapPoint } from './hook-registry.ts'
export type {
  AnnounceReport,
  Announcement,
  CliArgument,
  CliCommand,
  CliInvocation,
  CliOption,
  CliOutput,
  DiscoveredServer,
  HealthReport,
  ListReport,
  MetricSample,
  PluginStateChange,
  ResolveReport,
} from './hooks.ts'
export type { Role } from './manifest.ts'
export type { PluginState } from './state.ts'
export type { Clock, Timer } from '../platform/clock.ts'
export type { Logger } from '../platform/logger.ts'
export { CairnError } from '../base/errors.ts'
