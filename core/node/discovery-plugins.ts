/**
 * The discovery plugins of this process: those of its own plugin host where it has one, else a host of their own,
 * booted when somebody asks for the first time: a command whose servers stand in bs.list imports none of them.
 */
import type { DiscoveryPlugins, OpenDiscovery } from '../cli/context.ts'
import type { EtcDirectory } from '../cli/etc.ts'
import { silentLogger } from '../platform/logger.ts'
import type { HostHandle } from './plugins.ts'

export const DISCOVERY_TAPS = ['discovery.resolve', 'discovery.list'] as const
const BROKEN_STATES = new Set(['FAILED', 'RETRYING', 'INCOMPATIBLE', 'DEGRADED'])

export class DiscoveryHost {
  #own: Promise<HostHandle> | undefined
  #shared: HostHandle | undefined

  readonly open: OpenDiscovery = async (etc) => discoveryOf(this.#shared ?? (await this.#boot(etc)))

  /** From now on these are asked; they must have been booted with DISCOVERY_TAPS. */
  share(plugins: HostHandle): void {
    this.#shared = plugins
  }

  async stop(): Promise<void> {
    // A host that did not come up has told whoever asked.
    const own = await this.#own?.catch(() => undefined)
    await own?.stop()
  }

  #boot(etc: EtcDirectory): Promise<HostHandle> {
    this.#own ??= boot(etc)
    return this.#own
  }
}

/** The plugin host is a quarter of what a command loads. */
async function boot(etc: EtcDirectory): Promise<HostHandle> {
  const { bootPlugins } = await import('./plugins.ts')
  return bootPlugins({ role: 'cli', taps: DISCOVERY_TAPS, etc, logger: silentLogger })
}

function discoveryOf({ hooks, host }: HostHandle): DiscoveryPlugins {
  return {
    hooks: hooks.discovery,
    failures: () =>
      host.list().flatMap(({ name, state, lastError, reason }) => {
        if (!BROKEN_STATES.has(state)) return []
        return [{ plugin: name, reason: lastError?.message ?? reason ?? state }]
      }),
  }
}
