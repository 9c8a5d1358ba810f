/**
 * Orders of the metadata server about replicas: create, persist, promote, close, delete. Each waits for
 * what runs on the replica, changes the durable record, and answers when that is on disk (rules E2, E6,
 * E7, E12). Control work: promises are fine here.
 */
import { mark } from '../../base/coverage.ts'
import { type CairnError, codeOf } from '../../base/errors.ts'
import type { WireCode } from '../../wire/codes.ts'
import type { ChunkServerOrderMethods, ReplicaReport } from '../../wire/messages/chunk.ts'
import type { ResultOf } from '../../wire/messages/method.ts'
import { chunkPath } from '../format/chunk-layout.ts'
import type { ChunkStore } from './chunk-store.ts'
import { wireCodeOfDiskError, wireError } from '../format/errors.ts'
import { depthOf, isChainBroken, OVERLAY_DEPTH_MAX, OVERLAY_DEPTH_MERGED } from '../replica/ancestors.ts'
import { Hold, type QueuedOperation } from '../replica/operation-queue.ts'
import { Replica } from '../replica/replica.ts'
import { type Role, Role as Roles, roleName, StateFlag } from '../format/replica-state.ts'

const ALL_REGIONS = -1

class Exclusive implements QueuedOperation {
  readonly hold = Hold.barrier
  readonly firstPage = 0
  readonly lastPage = 0
  readonly #run: () => void

  constructor(run: () => void) {
    this.#run = run
  }

  start(): void {
    this.#run()
  }
}

/** Runs `work` alone on the replica, after everything admitted before has finished (rule E2). */
export function exclusively<T>(replica: Replica, work: () => Promise<T>): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const operation = new Exclusive(() => {
      void work()
        .then(resolve, reject)
        .finally(() => {
          replica.barrierCount--
          replica.queue.finish(operation)
        })
    })
    // those that wait for a page to be pulled would be waited for in vain; so would those that begin to
    replica.barrierCount++
    for (const waiter of [...(replica.baseWaiters ?? [])]) waiter.discard()
    replica.queue.submit(operation)
  })
}

/** Appends the `logged` state; what it says then becomes the state in force. */
export function commitState(
  store: ChunkStore,
  replica: Replica,
  change: (state: Replica['logged']) => void,
): Promise<void> {
  const { logged, state } = replica
  change(logged)
  return new Promise((resolve, reject) => {
    store.log.append(replica.chunk, logged, {
      onLogged: (error) => {
        if (error === null) {
          change(state)
          resolve()
        } else {
          logged.copyFrom(state)
          reject(error)
        }
      },
    })
  })
}

export interface ReplicaOrder {
  readonly chunk: number
  /** Of a creation: an overlay over the replica of this chunk here; 0 or absent: flat. */
  readonly parent?: number
  readonly version: number
  readonly role: Role
  readonly lease: number
}

export class ReplicaControl {
  readonly #store: ChunkStore
  /** Ends a running join of a replica whose epoch changes (rule J4). */
  onEpochChange: (replica: Replica) => void = () => undefined
  /** Overlays that are to take over what they read through: it shall be deleted, or the chain is long. */
  onMergeWanted: (overlay: Replica) => void = () => undefined

  constructor(store: ChunkStore) {
    this.#store = store
  }

  /** Rule E12: '' or a code. The creation record is the open-list entry of the new chunk (rule B1). */
  async create(order: ReplicaOrder): Promise<string> {
    const store = this.#store
    if (store.failure !== null) return 'DISK_FAILED'
    const existing = store.replicas.get(order.chunk)
    if (existing !== undefined) {
      const { version, role, parent } = existing.state
      const same = version === order.version && role === order.role && parent === parentOf(order)
      return same && !existing.isWritten ? '' : 'EEXIST'
    }
    if (store.isFull) return 'DISK_FULL'
    const parent = store.replicas.get(parentOf(order)) ?? null
    const refusal = checkParent(order, parent)
    if (refusal !== '') return refusal
    const replica = new Replica(order.chunk)
    replica.readThrough(parent)
    replica.joinPending = order.role !== Roles.inSync
    store.replicas.set(order.chunk, replica)
    try {
      if (parent !== null) await store.superblocks.allowOverlays()
      await exclusively(replica, () =>
        commitState(store, replica, (state) => {
          if (parent !== null) state.becomeOverlay(parent.chunk)
          state.version = order.version
          state.role = order.role
          state.lease = order.lease
          state.openLow = ALL_REGIONS
          state.openHigh = ALL_REGIONS
        }),
      )
    } catch (error) {
      replica.deleted = true
      replica.readThrough(null)
      store.replicas.delete(order.chunk)
      return wireCodeOfDiskError(error)
    }
    replica.resetGood()
    store.verified.add(replica.chunk)
    if (depthOf(replica) > OVERLAY_DEPTH_MERGED) this.onMergeWanted(replica)
    return ''
  }

  /** The version the replica holds afterwards, and a code when the order could not be followed. */
  async persist(order: ReplicaOrder): Promise<{ version: number; code: string }> {
    const store = this.#store
    const replica = store.replicas.get(order.chunk)
    if (replica === undefined) return { version: 0, code: 'NO_REPLICA' }
    if (replica.damage !== '' && order.role !== Roles.joining) {
      mark('a replica with an error is not in sync until it has joined')
      return { version: replica.state.version, code: 'DISK_FAILED' }
    }
    if (store.failure !== null) return { version: replica.state.version, code: 'DISK_FAILED' }
    try {
      return await exclusively(replica, () => this.#persistAlone(replica, order))
    } catch (error) {
      return { version: replica.state.version, code: wireCodeOfDiskError(error) }
    }
  }

  async #persistAlone(replica: Replica, order: ReplicaOrder): Promise<{ version: number; code: string }> {
    const store = this.#store
    if (replica.deleted) return { version: 0, code: 'NO_REPLICA' }
    // rule E2: versions only rise; a late order is answered with what is
    if (order.version < replica.state.version) {
      mark('a late order is answered with what is')
      return { version: replica.state.version, code: '' }
    }
    const rises = order.version > replica.state.version
    // rule F7: after an error only a join brings it back
    if ((replica.failure !== null || replica.rewrite) && order.role === Roles.inSync) {
      return { version: replica.state.version, code: 'DISK_FAILED' }
    }
    // rule B1: nobody has looked at it since it stopped: only a join or a heal says that it is good
    if (replica.isUnclean && order.role === Roles.inSync) {
      mark('an unclean replica is not in sync by an order alone')
      return { version: replica.state.version, code: 'NOT_IN_SYNC' }
    }
    if (rises) this.onEpochChange(replica)
    const isVoid = replica.damage !== ''
    if (isVoid && !rises) return { version: replica.state.version, code: 'DISK_FAILED' }
    if (replica.failure !== null || isVoid) await this.#startOver(replica)
    if (isVoid) this.#removeFile(replica.chunk)
    await commitState(store, replica, (state) => {
      if (rises) state.enter(order.version, order.role)
      // counts as void: joins from nothing, as a new replica does
      if (isVoid) {
        state.becomeFlat()
        state.flags = 0
        state.openLow = ALL_REGIONS
        state.openHigh = ALL_REGIONS
      }
      state.lease = Math.max(state.lease, order.lease)
    })
    if (isVoid) replica.readThrough(null)
    if (rises || (replica.state.role === Roles.inSync && !replica.isUnclean)) {
      replica.joinPending = replica.state.role !== Roles.inSync
      replica.restarted = false
      replica.resetGood()
    }
    return { version: replica.state.version, code: '' }
  }

  /** Nothing in memory can be believed after a failed sync: everything is read again, and verified (J9). */
  async #startOver(replica: Replica): Promise<void> {
    await this.#store.syncs.idle(replica)
    this.#store.writeBack.drop(replica)
    this.#store.cache.forget(replica)
    replica.header = { sequence: 0, presentLow: 0, presentHigh: 0 }
    replica.unverifiedLow = ALL_REGIONS
    replica.unverifiedHigh = ALL_REGIONS
    replica.rewrite = replica.failure !== null
    replica.joinPending = true
    replica.joinedVersion = 0
    replica.failure = null
    replica.damage = ''
  }

  /**
   * Joining to in sync without a bump (rule E7). The quorum has decided: the replica had synced everything at
   * this version before it reported (rule F1), and took all writes since. A join that is ordered again meanwhile changes
   * nothing (`Joiner.join`); only an unclean stop or an error after the report takes the decision back.
   */
  async promote(chunk: number, version: number): Promise<void> {
    const replica = this.#store.replicas.get(chunk)
    if (replica === undefined) throw wireError('NO_REPLICA', `no replica of chunk ${chunk}`)
    await exclusively(replica, async () => {
      if (replica.state.version !== version) throw wireError('WRONG_VERSION', 'the epoch has changed')
      if (replica.state.role === Roles.inSync) return
      const isJoined = !replica.joinPending || replica.joinedVersion === version
      if (!isJoined || replica.isUnclean) throw wireError('REFUSED', 'the join is not complete')
      this.onEpochChange(replica)
      replica.joinPending = false
      await commitState(this.#store, replica, (state) => {
        state.enter(version, Roles.inSync)
      })
      replica.good = null
      replica.writtenEnds = null
    })
  }

  /** The intent is cleared: the entry goes after a sync that covers everything (rule B1). Nobody waits. */
  close(chunks: readonly number[]): void {
    for (const chunk of chunks) {
      const replica = this.#store.replicas.get(chunk)
      if (replica === undefined || !replica.serves) continue
      // an unclean replica stays on the list until it joined or was healed
      if (!replica.state.isOpen || replica.isUnclean) continue
      this.#store.sync(replica, { onSynced: (error) => this.#closeSynced(replica, error) })
    }
  }

  #closeSynced(replica: Replica, error: CairnError | null): void {
    // written again meanwhile: another close will come
    if (error !== null || replica.dirtyRegionCount > 0 || replica.unflushedBytes > 0) return
    if (!replica.queue.idle || replica.deleted || replica.joinPending) return
    commitState(this.#store, replica, (state) => {
      state.openLow = 0
      state.openHigh = 0
    }).catch((failure: unknown) => {
      this.#store.logger.warn('open-list entry stays', { chunk: replica.chunk, code: codeOf(failure) })
    })
  }

  /** For a master that was told of a failure (rule A1), or an administrator who has nothing better (rule G2). */
  describe(chunk: number): ResultOf<ChunkServerOrderMethods, 'replica.describe'> {
    const replica = this.#store.replicas.get(chunk)
    if (replica === undefined) throw wireError('NO_REPLICA', `no replica of chunk ${chunk}`)
    const { version, role, crashed = false, damaged } = reportOf(replica)
    const { inSyncVersion } = replica.state
    return { version, role, inSyncVersion, crashed, damaged, fault: this.#faultOf(replica) }
  }

  #faultOf(replica: Replica): string {
    const store = this.#store
    if (store.failure !== null || !replica.serves) return 'DISK_FAILED'
    if (store.isFull) return 'DISK_FULL'
    return replica.servesReads && !replica.isUnclean ? '' : 'NOT_IN_SYNC'
  }

  /**
   * '' or why not: a newer version (rule E6), an overlay that reads through it (rule S3), which is merged then, so
   * that the order can be repeated. A replica that is not here is deleted. Works on a full disk (A2).
   */
  async delete(chunk: number, versionMax: number): Promise<WireCode | ''> {
    const store = this.#store
    const replica = store.replicas.get(chunk)
    if (replica === undefined) return ''
    return exclusively(replica, async () => {
      if (replica.deleted) return ''
      if (replica.state.version > versionMax) return 'WRONG_VERSION'
      for (const overlay of replica.overlays ?? []) this.onMergeWanted(overlay)
      if (replica.isFrozen) {
        mark('a replica with an overlay above it is not deleted')
        return 'HAS_OVERLAY'
      }
      this.onEpochChange(replica)
      replica.deleted = true
      await store.syncs.idle(replica)
      store.writeBack.drop(replica)
      store.cache.forget(replica)
      store.replicas.delete(chunk)
      store.verified.delete(chunk)
      try {
        await this.#logDeletion(chunk)
        this.#removeFile(chunk)
      } catch {
        // no room for the record: the file goes first, which makes room
        this.#removeFile(chunk)
        await this.#logDeletion(chunk)
      }
      // Not before it is durable: an overlay without its parent is damage. If it cannot be, the parent stays until the
      // next start.
      replica.readThrough(null)
      store.refreshSpace()
      return ''
    })
  }

  #logDeletion(chunk: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#store.log.append(chunk, null, {
        onLogged: (error) => (error === null ? resolve() : reject(error)),
      })
    })
  }

  #removeFile(chunk: number): void {
    const { disk } = this.#store
    if (disk.exists(chunkPath(chunk))) disk.remove(chunkPath(chunk))
  }
}

function parentOf(order: ReplicaOrder): number {
  return order.parent ?? 0
}

/** Rule S3: a child is made over a parent that is whole and in sync here, and has a higher version (S4). */
function checkParent(order: ReplicaOrder, parent: Replica | null): WireCode | '' {
  if (parentOf(order) === 0) return ''
  if (parent === null || parent.deleted) return 'NO_REPLICA'
  const { state } = parent
  if (!parent.serves || state.role !== Roles.inSync || parent.isUnclean || isChainBroken(parent)) {
    return 'NOT_IN_SYNC'
  }
  if (order.version <= state.version) return 'WRONG_VERSION'
  return depthOf(parent) + 1 > OVERLAY_DEPTH_MAX ? 'TRY_AGAIN' : ''
}

/** What `cs.report` says of a replica. */
export function reportOf(replica: Replica): ReplicaReport {
  // rule E12: one that is being created may be durable any moment; as version 0 it could never be deleted
  const said = replica.state.version === 0 ? replica.logged : replica.state
  return {
    chunk: replica.chunk,
    version: said.version,
    role: roleName(said.role),
    lease: said.lease,
    unclean: replica.isUnclean || replica.failure !== null,
    crashed: (replica.state.flags & (StateFlag.crashed | StateFlag.failed)) !== 0,
    restarted: replica.restarted,
    ...((replica.state.flags & StateFlag.rolledBack) === 0 ? {} : { rolledBack: true }),
    damaged: replica.damage !== '' || isChainBroken(replica),
    ...(said.isOverlay ? { parent: said.parent } : {}),
  }
}
