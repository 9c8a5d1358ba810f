/**
 * The repository of a metadata server: its Store with the state machine and the log on it. `createCluster`
 * writes the first command of a new cluster; `openRepository` loads what is there.
 */
import type { PlacementAttributes } from '../../wire/messages/common.ts'
import { CLUSTER_NAME_KEY, CLUSTER_UUID_KEY, generationOf } from '../chunks/administration.ts'
import { formatAddress } from '../../platform/network.ts'
import { NotMasterError } from '../../wire/not-master.ts'
import type { ChunkState } from '../chunks/handlers.ts'
import { wireError } from '../errors.ts'
import { type RegisteredMember, registeredInLog } from '../quorum/member-addresses.ts'
import { RaftLog, type RaftLogEvents, type RaftLogOptions } from '../quorum/raft-log.ts'
import { CairnError } from '../../base/errors.ts'
import type { Random } from '../../platform/random.ts'
import type { StateMachine } from '../state/apply.ts'
import { HIGHEST_LEVEL } from '../state/feature-levels.ts'
import { createStateMachine } from '../state/machine.ts'
import { valueOf } from '../state/result.ts'
import type { AuthenticationRecord } from '../authentication/record.ts'

const UUID_BYTES = 16

export type RepositoryOptions = Omit<RaftLogOptions, 'machine'>

export interface Repository {
  readonly state: ChunkState
  readonly log: RaftLog
  /** Where members were last, as far as the state does not say it yet. */
  readonly moves: readonly RegisteredMember[]
}

export interface ClusterIdentity {
  readonly name: string
  readonly uuid: string
  /** How often the metadata have begun anew, as a number that rises; absent: not known. */
  readonly generation?: number
}

/** Loads. Rejects with ROW_CORRUPT, LOG_CORRUPT, STATE_FORMAT, VERSION_TOO_OLD or HARD_STATE_DAMAGED; then nothing may be served. */
export async function openRepository(options: RepositoryOptions): Promise<Repository> {
  const machine = createStateMachine()
  const { state } = machine
  const log = new RaftLog({ ...options, machine: machine as unknown as StateMachine })
  return { state, log, moves: registeredInLog(await log.start()) }
}

/** Undefined: no cluster was created here, or nothing of it has arrived yet. */
export function clusterIdentityOf(state: ChunkState): ClusterIdentity | undefined {
  const uuid = state.config.get(CLUSTER_UUID_KEY)
  return uuid === undefined
    ? undefined
    : {
        name: String(state.config.get(CLUSTER_NAME_KEY)),
        uuid: String(uuid),
        generation: generationOf(state),
      }
}

/** How a member says that somebody else has to be asked. */
export function notMasterOf(repository: Repository | null): NotMasterError {
  const leader = repository?.log.leader ?? 0
  const row = repository?.state.members.get(leader)
  if (row === undefined || leader === repository?.log.member)
    return new NotMasterError(
      'this metadata server is not the master, and knows of none: a majority has to agree on one',
      null,
    )
  const { host, port } = row
  return new NotMasterError(`the master is MDS#${leader} at ${formatAddress(row)}`, { host, port })
}

/** Before it takes part: a repository of another cluster than that of the key of this host. Throws WRONG_CLUSTER. */
export function refuseForeignRepository(
  found: ClusterIdentity | null | undefined,
  expected: ClusterIdentity | undefined,
): void {
  if (found === undefined || found === null || expected === undefined) return
  if (found.name === expected.name && found.uuid === expected.uuid) return
  const which = found.name === expected.name ? 'another cluster of this name' : `cluster '${found.name}'`
  throw new CairnError('WRONG_CLUSTER', `the repository belongs to ${which}, not to '${expected.name}'`, {
    next: 'check -r and -c',
  })
}

export interface NewCluster {
  readonly name: string
  /** Attributes of the root; what is missing has the value of a new cluster (guide: 1 replica, host). */
  readonly placement?: PlacementAttributes
  /** What is remembered of its password and key; without it nobody has to prove anything (tests). */
  readonly authentication?: (clusterUuid: string) => AuthenticationRecord
}

export type NewClusterOptions = Omit<RepositoryOptions, 'events' | 'isFounder'> & {
  readonly random: Random
  /** The store failed: nothing may be used. */
  readonly onFatal: (error: Error) => void
}

/** In an empty repository. Rejects with REFUSED when there is a cluster already. Closes the store. */
export async function createCluster(
  options: NewClusterOptions,
  cluster: NewCluster,
): Promise<{ readonly uuid: string }> {
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(cluster.name)) {
    throw wireError('EINVAL', `'${cluster.name}' is no cluster name: letters, digits, '_' and '-'`)
  }
  const mastered = Promise.withResolvers<void>()
  const events: RaftLogEvents = {
    send: () => {},
    becameMaster: () => mastered.resolve(),
    lostMastership: () => {},
    sendSnapshot: () => {},
    install: () => {},
    failed: (error) => {
      options.onFatal(error)
      mastered.reject(error)
    },
  }
  const repository = await openRepository({ ...options, events, isFounder: true })
  try {
    await mastered.promise
    const uuid = options.random.hex(UUID_BYTES)
    const { name, placement = {} } = cluster
    valueOf(
      await repository.log.propose({ type: 'cluster.create', name, uuid, placement, level: HIGHEST_LEVEL }),
    )
    if (cluster.authentication !== undefined) {
      const value = JSON.stringify(cluster.authentication(uuid))
      valueOf(await repository.log.propose({ type: 'authentication.set', revision: 1, value }))
    }
    return { uuid }
  } finally {
    await repository.log.close()
  }
}
