/** What a fake chunk server keeps of a replica: everything but data. */
import { CairnError } from '../base/errors.ts'
import type { ChunkServerOrderMethods, ReplicaRole } from '../wire/messages/chunk.ts'
import type { ResultOf } from '../wire/messages/method.ts'

export interface FakeReplica {
  version: number
  role: ReplicaRole
  lease: number
  unclean: boolean
  /** The version at which it had begun to join when its process started. */
  restartedAt?: number
  damaged: boolean
  /** A joiner or reconciler that has pulled everything. */
  complete: boolean
  writtenEnd: number
  /** An overlay: what it reads through on this server. 0 or absent: flat. */
  parent?: number
  /** Page records by region, for comparison; without an entry the region is blank. */
  records?: Map<number, Buffer>
}

export function newReplica(version: number, role: ReplicaRole, lease: number): FakeReplica {
  const complete = role === 'in-sync'
  const flags = { unclean: false, restartedAt: 0, damaged: false }
  return { version, role, lease, ...flags, complete, writtenEnd: 0, parent: 0 }
}

export function describeReplica(
  replica: FakeReplica | undefined,
): ResultOf<ChunkServerOrderMethods, 'replica.describe'> {
  if (replica === undefined) throw new CairnError('NO_REPLICA', 'no such replica')
  const { version, role, damaged, unclean: crashed, complete } = replica
  const fault = damaged ? 'DISK_FAILED' : role === 'in-sync' && !crashed ? '' : 'NOT_IN_SYNC'
  return { version, role, inSyncVersion: complete ? version : 0, crashed, damaged, fault }
}
