/** What every command gets: where to print, where the configuration lies, and how to reach the cluster. */
import { CairnError } from '../base/errors.ts'
import type { MetadataServers } from '../discovery/metadata-servers.ts'
import type { HooksOf } from '../kernel/hook-registry.ts'
import type { kernelHooks } from '../kernel/hooks.ts'
import type { Address } from '../platform/network.ts'
import type { AdminConnection } from './admin.ts'
import type { EtcDirectory } from './etc.ts'
import type { Output } from './output.ts'

export interface CommandContext {
  readonly output: Output
  readonly etc: EtcDirectory
  /** As given with -c; undefined when not given. */
  readonly clusterGiven: string | undefined
  /** The name given with -c, or the only one configured. Throws USAGE. */
  cluster(): string
  /** Base addresses that an administrator gave: with -b, then in bs.list. */
  configuredServers(): readonly Address[]
  /** The same, then what discovery finds when those do not answer. */
  metadataServers(): MetadataServers
  /** The same context, with other ways to the metadata servers. */
  withServers(change: (known: MetadataServers) => MetadataServers): CommandContext
  /** A session with the master; closed by `use`'s end. */
  withAdmin<T>(use: (admin: AdminConnection) => Promise<T>): Promise<T>
}

/** Plugins that know of clusters and servers. */
export interface DiscoveryPlugins {
  readonly hooks: HooksOf<typeof kernelHooks>['discovery']
  /** Those that do not work, or failed just now. */
  failures(): readonly { readonly plugin: string; readonly reason: string }[]
}

/** Loads them, once, when somebody asks. */
export type OpenDiscovery = (etc: EtcDirectory) => Promise<DiscoveryPlugins>

export function selectCluster(given: string | undefined, etc: EtcDirectory): string {
  if (given !== undefined) return given
  const known = etc.clusters()
  const only = known[0]
  if (known.length === 1 && only !== undefined) return only
  throw new CairnError(
    'USAGE',
    known.length === 0
      ? 'no cluster is configured on this host'
      : 'several clusters are configured on this host',
    {
      next:
        known.length === 0
          ? `name one with -c NAME, and put HOST:PORT of a metadata server into ${etc.root}/clusters/NAME/bs.list`
          : `name one with -c: ${known.join(', ')}`,
    },
  )
}
