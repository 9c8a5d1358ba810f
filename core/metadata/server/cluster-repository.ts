/**
 * The repository of a metadata server: its Store with the state machine and the log on it. `createCluster`
 * writes the first command of a new cluster; `openRepository` loads what is there.
 */
import type { PlacementAttributes } from '../../wire/messages/common.ts'
import { CLUSTER_NAME_KEY, CLUSTER_UUID_KEY } from '../chunks/administration.ts'
import type { ChunkState } from '../chunks/handlers.ts'
import { wireError } from '../errors.ts'
import { SingleLog } from '../log/single-log.ts'
import type { Clock } from '../../platform/clock.ts'
import type { Logger } from '../../platform/logger.ts'
import type { Random } from '../../platform/random.ts'
import type { Store } from '../../platform/store.ts'
import type { StateMachine } from '../state/apply.ts'
import { createStateMachine } from '../state/machine.ts'
import { valueOf } from '../state/result.ts'
import type { AuthenticationRecord } from '../authentication/record.ts'

const UUID_BYTES = 16

export interface RepositoryOptions {
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  /** The store failed: the process must end (rule F7). */
  readonly onFatal: (error: Error) => void
}

export interface Repository {
  readonly state: ChunkState
  readonly log: SingleLog
  /** Empty: no cluster was created here yet. */
  readonly clusterName: string
  readonly clusterUuid: string
}

/** Loads and replays. Rejects with ROW_CORRUPT, LOG_CORRUPT or STATE_FORMAT; then nothing may be served. */
export async function openRepository(options: RepositoryOptions): Promise<Repository> {
  const machine = createStateMachine()
  const { state } = machine
  const log = new SingleLog({ ...options, machine: machine as unknown as StateMachine })
  await log.start()
  return {
    state,
    log,
    clusterName: String(state.config.get(CLUSTER_NAME_KEY) ?? ''),
    clusterUuid: String(state.config.get(CLUSTER_UUID_KEY) ?? ''),
  }
}

export interface NewCluster {
  readonly name: string
  /** Attributes of the root; what is missing has the value of a new cluster (guide: 1 replica, host). */
  readonly placement?: PlacementAttributes
  /** What is remembered of its password and key; without it nobody has to prove anything (tests). */
  readonly authentication?: (clusterUuid: string) => AuthenticationRecord
}

/** In an empty repository. Rejects with REFUSED when there is a cluster already. Closes the store. */
export async function createCluster(
  options: RepositoryOptions & { readonly random: Random },
  cluster: NewCluster,
): Promise<{ readonly uuid: string }> {
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(cluster.name)) {
    throw wireError('EINVAL', `'${cluster.name}' is no cluster name: letters, digits, '_' and '-'`)
  }
  const repository = await openRepository(options)
  try {
    const uuid = options.random.hex(UUID_BYTES)
    const { name, placement = {} } = cluster
    valueOf(await repository.log.propose({ type: 'cluster.create', name, uuid, placement }))
    if (cluster.authentication !== undefined) {
      const value = JSON.stringify(cluster.authentication(uuid))
      valueOf(await repository.log.propose({ type: 'authentication.set', revision: 1, value }))
    }
    return { uuid }
  } finally {
    await repository.log.close()
  }
}
