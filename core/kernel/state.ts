/**
 * The states of a plugin, and which may follow which.
 *
 *   DISABLED <------------------------------ any state, by `disable` or because the role does not want it
 *      | enable                              (through STOPPING when it runs)
 *      v
 *   INCOMPATIBLE     refused from its manifest; nothing of it was imported
 *   WAITING -------> STARTING --------------> ACTIVE <----> DEGRADED
 *      ^ requirement    | start failed          |  provider gone, reload, stop, too many faults
 *      | appears        v                       v
 *      |             RETRYING --(back-off)--> STARTING      STOPPING --> WAITING, DISABLED or FAILED
 *      |                | tries used up, or a fault that no retry heals
 *      +----------------+-----------------> FAILED --(reload, enable)--> STARTING
 */
export const PLUGIN_STATES = [
  'DISABLED',
  'INCOMPATIBLE',
  'WAITING',
  'STARTING',
  'ACTIVE',
  'DEGRADED',
  'RETRYING',
  'FAILED',
  'STOPPING',
] as const

export type PluginState = (typeof PLUGIN_STATES)[number]

const FOLLOWERS: Readonly<Record<PluginState, readonly PluginState[]>> = {
  DISABLED: ['WAITING', 'STARTING', 'INCOMPATIBLE', 'FAILED'],
  INCOMPATIBLE: ['DISABLED', 'WAITING', 'STARTING', 'FAILED'],
  WAITING: ['STARTING', 'DISABLED', 'FAILED', 'INCOMPATIBLE'],
  STARTING: ['ACTIVE', 'RETRYING', 'FAILED', 'STOPPING'],
  ACTIVE: ['DEGRADED', 'STOPPING'],
  DEGRADED: ['ACTIVE', 'STOPPING'],
  RETRYING: ['STARTING', 'WAITING', 'DISABLED', 'FAILED', 'INCOMPATIBLE'],
  FAILED: ['WAITING', 'STARTING', 'DISABLED', 'INCOMPATIBLE'],
  STOPPING: ['DISABLED', 'WAITING', 'FAILED', 'RETRYING'],
}

export function mayFollow(from: PluginState, to: PluginState): boolean {
  return FOLLOWERS[from].includes(to)
}

/** The plugin's code is in use: its taps, services and timers count. */
export function isRunning(state: PluginState): boolean {
  return state === 'ACTIVE' || state === 'DEGRADED'
}
