/** What a metadata server is given, and how its ports want a proof of the cluster's key. */
import type { BufferPool } from '../../base/buffer-pool.ts'
import type { Clock } from '../../platform/clock.ts'
import type { HardStateFile } from '../../platform/hard-state.ts'
import type { Logger } from '../../platform/logger.ts'
import type { Address, Network } from '../../platform/network.ts'
import type { Random } from '../../platform/random.ts'
import type { SnapshotFiles } from '../../platform/snapshot-files.ts'
import type { Store } from '../../platform/store.ts'
import type { RaftOptions } from '../../raft/index.ts'
import { KeyAuthenticator } from '../../wire/authentication/key-authenticator.ts'
import type { WireLimits } from '../../wire/types.ts'
import type { WindowLimits } from '../quorum/recovery.ts'
import type { ClusterIdentity } from './cluster-repository.ts'
import type { ProcessUsage } from './services/cluster-statistics.ts'
import type { MetadataAuthentication } from './mastership.ts'

export interface MetadataServerOptions {
  readonly store: Store
  readonly hardState: HardStateFile
  /** Without it a member that lacks more than the log holds stays behind. */
  readonly snapshots?: SnapshotFiles
  /** A place for copies that an administrator fetches. */
  readonly backups?: SnapshotFiles
  readonly clock: Clock
  readonly network: Network
  readonly random: Random
  readonly logger: Logger
  readonly pool: BufferPool
  /** Base address: metadata servers dial each other here, everybody else on the next port. */
  readonly address: Address
  readonly hostName: string
  /** What a new member was told, until its state says it. */
  readonly cluster?: ClusterIdentity
  /** Where members are, as an administrator said while the cluster was stopped. */
  readonly moved?: ReadonlyMap<number, Address>
  /** The register says the same as `moved`: it is of no more use. */
  readonly onMovesSettled?: () => void
  /** The process must end at once. MEMBER_REMOVED: and must not be started again. */
  readonly onFatal: (error: Error) => void
  /** `admin.shutdown`: end in order. */
  readonly onShutdown?: () => void
  readonly usage?: () => ProcessUsage
  readonly limits?: Partial<WireLimits>
  /** Without it nobody has to prove anything (simulation, tests). */
  readonly authentication?: MetadataAuthentication
  readonly window?: WindowLimits
  readonly raft?: Partial<RaftOptions>
}

/** Both ports want a proof of the cluster's key; hosts that have none bring the password to the second. */
export function authenticatorOf(
  options: MetadataServerOptions,
  clusterName: () => string,
): (admitsPasswords: boolean) => { authenticator?: KeyAuthenticator } {
  const { authentication, clock, random, logger } = options
  if (authentication === undefined) return () => ({})
  const { keys } = authentication
  return (admitsPasswords) => ({
    authenticator: new KeyAuthenticator({
      ...{ clock, random, logger, keys, admitsPasswords },
      cluster: clusterName(),
    }),
  })
}
