/** Discovery by DNS: SRV records for metadata servers, TXT records or zone transfer for names of clusters. */
import { definePlugin } from '@cairn/core/plugin'
import { Lookup } from './lookup.ts'
import { checkSettings, configSchema } from './settings.ts'

export default definePlugin({
  config: configSchema,
  apply(kernel, settings) {
    checkSettings(settings)
    const lookup = new Lookup(settings, kernel.clock)
    kernel.hooks.discovery.resolve.tap((cluster) => lookup.resolve(cluster))
    kernel.hooks.discovery.list.tap(() => lookup.list())
  },
})
