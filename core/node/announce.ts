/** Ties the announcer of a metadata server to the plugin host: a plugin that comes up later is told too. */
import { Announcer } from '../discovery/announcer.ts'
import type { TapOwner } from '../kernel/hook.ts'
import type { Logger } from '../platform/logger.ts'
import type { HostHandle } from './plugins.ts'

export function announcerOf(plugins: HostHandle, logger: Logger): Announcer {
  const { hooks } = plugins
  const announcer = new Announcer((announcements) => hooks.discovery.announce.call(announcements), logger)
  const core: TapOwner = {
    plugin: 'core',
    rank: 0,
    holding: false,
    muted: false,
    held: new Set(),
    reportFault: (hook, error) => logger.error('announcing failed', { hook, error: String(error) }),
  }
  hooks.plugin.stateChanged.tap(core, ({ from, to }) => {
    if (from === 'STARTING' && to === 'ACTIVE') void announcer.again()
  })
  return announcer
}
