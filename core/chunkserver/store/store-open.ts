/**
 * Making, opening and closing a chunk store. Opening decides what kind of stop came before (rule B2) and
 * which replicas are unclean (rule B1); nothing serves before that is durable.
 */
import { mark } from '../../base/coverage.ts'
import type { BufferPool } from '../../base/buffer-pool.ts'
import type { Clock } from '../../platform/clock.ts'
import type { Disk, DiskFile } from '../../platform/disk.ts'
import type { Logger } from '../../platform/logger.ts'
import type { Random } from '../../platform/random.ts'
import { chunkPath } from '../format/chunk-layout.ts'
import { ChunkStore } from './chunk-store.ts'
import { ensureDirectory, syncDirectory, syncFile } from '../format/disk-calls.ts'
import { storeError } from '../format/errors.ts'
import { ReplicaLog } from '../format/replica-log.ts'
import { exclusively } from './replica-control.ts'
import { OVERLAY_DEPTH_MAX } from '../replica/ancestors.ts'
import { Replica } from '../replica/replica.ts'
import { Role, StateFlag } from '../format/replica-state.ts'
import {
  loadSuperblock,
  saveSuperblock,
  STORE_FORMAT,
  type Superblock,
  SUPERBLOCK_NAME,
  stopKind,
  type UncleanStop,
} from '../format/superblock.ts'
import { SuperblockKeeper } from '../format/superblock-keeper.ts'

const ALL_REGIONS = -1

export interface CreateStoreOptions {
  readonly disk: Disk
  readonly clock: Clock
  readonly random: Random
  readonly clusterName: string
  readonly clusterUuid?: string
  readonly tier: number
  readonly checksums: boolean
}

/** Makes a store in an empty directory. Durable when it resolves. Throws STORE_EXISTS. */
export async function createStore(options: CreateStoreOptions): Promise<Superblock> {
  const { disk } = options
  if (disk.exists(SUPERBLOCK_NAME)) {
    throw storeError('STORE_EXISTS', 'the directory holds a chunk store already', 'choose another directory')
  }
  ensureDirectory(disk, 'chunks')
  await ReplicaLog.create(disk, options.clock)
  const superblock: Superblock = {
    storeUuid: options.random.hex(16),
    clusterName: options.clusterName,
    clusterUuid: options.clusterUuid ?? '',
    server: 0,
    registration: 0,
    decorators: [],
    checksums: options.checksums,
    tier: options.tier,
    incarnation: 0,
    crashes: 0,
    bootId: '',
    deviceSequence: '',
    mountInstance: '',
    cleanStop: true,
    logSequence: 0,
  }
  // last: a directory without superblock is no store
  await syncDirectory(disk, 'chunks')
  await saveSuperblock(disk, superblock, 1, STORE_FORMAT)
  await syncDirectory(disk, '.')
  return superblock
}

export interface OpenStoreOptions {
  readonly disk: Disk
  readonly clock: Clock
  readonly logger: Logger
  readonly pool: BufferPool
  /** Empty: any. */
  readonly clusterName: string
  /** Names of the decorators that are loaded (rule B4). */
  readonly decorators?: readonly string[]
}

/** Opens and recovers. Throws STORE_INVALID, STORE_FOREIGN, STORE_DECORATED, or an error of the disk. */
export async function openStore(options: OpenStoreOptions): Promise<ChunkStore> {
  const { disk, clock, logger } = options
  const found = await loadSuperblock(disk)
  const { superblock } = found
  checkIdentity(superblock, options)
  const identity = disk.identity()
  const log = new ReplicaLog(disk, clock)
  const loaded = await log.load()
  const behind = superblock.cleanStop && loaded.lastSequence < superblock.logSequence
  const damaged = loaded.damaged || behind
  if (damaged) logger.error('the replica log is damaged: every replica counts as unclean')
  const files = listChunkFiles(disk)
  const replicas = new Map<number, Replica>()
  for (const [chunk, state] of loaded.states) {
    const replica = new Replica(chunk)
    replica.state.copyFrom(state)
    if (damaged) {
      replica.state.openLow = ALL_REGIONS
      replica.state.openHigh = ALL_REGIONS
    }
    if (replica.isWritten && !files.has(chunk)) replica.damage = 'the chunk file is missing'
    replicas.set(chunk, replica)
  }
  let kind = damaged && superblock.cleanStop ? 'host' : stopKind(superblock, identity)
  if (kind === 'process' && !(await firstSync(disk, replicas, files))) kind = 'host'
  if (kind === 'host') mark('a host crash is recognised')
  markUnclean(replicas, files, kind)
  handleOrphans(disk, replicas, files, damaged, logger)
  linkOverlays(replicas, files, kind)
  for (const replica of replicas.values()) replica.logged.copyFrom(replica.state)
  await log.start({
    get stateCount() {
      return replicas.size
    },
    *states() {
      for (const replica of replicas.values()) {
        // `logged`, not `state`: the record of a creation may be durable in the file that is left behind here
        // while nobody was told yet
        if (replica.logged.version > 0 && !replica.deleted) yield [replica.chunk, replica.logged] as const
      }
    },
  })
  const keeper = new SuperblockKeeper(disk, found)
  await keeper.change({
    incarnation: superblock.incarnation + 1,
    crashes: superblock.crashes + (kind === 'host' ? 1 : 0),
    bootId: identity.bootId,
    deviceSequence: identity.deviceSequence,
    mountInstance: identity.mountInstance,
    cleanStop: false,
    logSequence: log.lastSequence,
  })
  return new ChunkStore({
    disk,
    clock,
    logger,
    pool: options.pool,
    log,
    superblock: keeper,
    uncleanStop: kind,
    replicas,
  })
}

function checkIdentity(superblock: Superblock, options: OpenStoreOptions): void {
  if (options.clusterName !== '' && superblock.clusterName !== options.clusterName) {
    throw storeError(
      'STORE_FOREIGN',
      `the store belongs to cluster ${superblock.clusterName}`,
      'give the right cluster name, or make a new chunk server in another directory',
    )
  }
  const missing = superblock.decorators.filter((name) => options.decorators?.includes(name) !== true)
  if (missing.length > 0) {
    throw storeError(
      'STORE_DECORATED',
      `the store was written through ${missing.join(', ')}, which is not loaded (rule B4)`,
      'enable the plugin again, or drain it first with configure-cs',
    )
  }
}

/** Ids of all files below chunks/. */
function listChunkFiles(disk: Disk): Set<number> {
  const found = new Set<number>()
  for (const directory of disk.list('chunks')) {
    for (const name of disk.list(`chunks/${directory}`)) {
      const chunk = Number(name)
      if (Number.isSafeInteger(chunk) && chunkPath(chunk) === `chunks/${directory}/${name}`) found.add(chunk)
    }
  }
  return found
}

/** Rules B2, F7: after a process crash everything on the open list is synced once; an error says host crash. */
async function firstSync(disk: Disk, replicas: Map<number, Replica>, files: Set<number>): Promise<boolean> {
  for (const replica of replicas.values()) {
    if (!replica.state.isOpen || !files.has(replica.chunk)) continue
    let file: DiskFile | null = null
    try {
      file = disk.open(chunkPath(replica.chunk))
      await syncFile(file)
    } catch {
      return false
    } finally {
      file?.close()
    }
  }
  return true
}

function markUnclean(replicas: Map<number, Replica>, files: Set<number>, kind: UncleanStop): void {
  for (const replica of replicas.values()) {
    const { state } = replica
    // a replica made ahead that was never written has nothing that a dead process could have lost
    const untouched = kind !== 'host' && !replica.isWritten && !files.has(replica.chunk)
    if (kind !== 'none' && state.isOpen && !untouched) state.flags |= StateFlag.unclean
    if (kind === 'host' && state.isOpen) state.flags |= StateFlag.crashed
    replica.restarted = state.role === Role.joining && state.isOpen && !untouched
    // rule P4: until it is told its sources nothing is good here
    if (state.role === Role.joining && !replica.isUnclean) replica.resetGood()
    if (!replica.isUnclean) continue
    replica.unverifiedLow = state.openLow
    replica.unverifiedHigh = state.openHigh
    replica.joinPending = true
    replica.rewrite = (state.flags & StateFlag.failed) !== 0
  }
}

/** Rule S3: an overlay whose parent is not here is reported as damaged; what it has of its own is kept. */
function linkOverlays(replicas: Map<number, Replica>, files: Set<number>, kind: UncleanStop): void {
  for (const replica of replicas.values()) {
    const { state } = replica
    if (!state.isOverlay) continue
    if (state.parent === 0) replica.damage = 'the record of its parent was lost'
    const parent = replicas.get(state.parent)
    replica.readThrough(parent === undefined || parent === replica ? missing(state.parent) : parent)
    // After a loss of power the data area of an absent page may have got a part of a write that was not flushed,
    // over zeros and not over the page's old content: the old content is right, and nothing else (rule P1).
    if (kind === 'host' && files.has(replica.chunk)) {
      state.leftoversLow |= state.openLow
      state.leftoversHigh |= state.openHigh
    }
    replica.unverifiedLow |= state.leftoversLow
    replica.unverifiedHigh |= state.leftoversHigh
  }
  for (const replica of replicas.values()) {
    if (!isChainBounded(replica)) replica.readThrough(missing(replica.state.parent))
  }
}

/** What a disk says must not send anybody round in a circle. */
function isChainBounded(replica: Replica): boolean {
  let depth = 0
  for (let parent = replica.parent; parent !== null; parent = parent.parent) {
    if (++depth > OVERLAY_DEPTH_MAX) return false
  }
  return true
}

/** Stands for a replica that is not here. */
function missing(chunk: number): Replica {
  const replica = new Replica(chunk)
  replica.damage = 'the replica is missing'
  return replica
}

/**
 * Files without a record. In a sound log they are what a deletion left behind; in a damaged one their
 * record is what was lost, and the quorum decides (they are reported as damaged).
 */
function handleOrphans(
  disk: Disk,
  replicas: Map<number, Replica>,
  files: Set<number>,
  damaged: boolean,
  logger: Logger,
): void {
  for (const chunk of files) {
    if (replicas.has(chunk)) continue
    if (!damaged) {
      logger.info('removing the file of a deleted replica', { chunk })
      disk.remove(chunkPath(chunk))
      continue
    }
    const replica = new Replica(chunk)
    replica.damage = 'the record of the replica was lost'
    replicas.set(chunk, replica)
  }
}

/** Stops cleanly: everything synced, and only then the superblock says so. Replicas that fail stay unclean. */
export async function closeStore(store: ChunkStore): Promise<void> {
  store.writeBack.stop()
  store.closing = true
  const busy = [...store.replicas.values()].filter((replica) => !replica.queue.idle)
  await Promise.all(busy.map((replica) => exclusively(replica, () => Promise.resolve())))
  await Promise.all(
    store.writeBack.dirtyReplicas.map(
      (replica) => new Promise<void>((resolve) => store.sync(replica, { onSynced: () => resolve() })),
    ),
  )
  // a sync that began in the background is in no list any more, and may still fail
  await Promise.all([...store.replicas.values()].map((replica) => store.syncs.idle(replica)))
  await store.log.drained()
  const isSynced = [...store.replicas.values()].every((replica) => replica.isSynced)
  if (store.failure === null && store.log.failure === null && isSynced) {
    await store.superblocks.change({ cleanStop: true, logSequence: store.log.lastSequence })
  }
  store.cache.closeAll()
  store.log.close()
}

/**
 * Rule B3: the quorum knows that the disk once had more marks. What was written since, and on which replicas, nobody
 * can tell: each joins again, and none is an authority. All of them durably in one step, so that a crash in between
 * does not hide some.
 */
export async function distrustReplicas(store: ChunkStore): Promise<void> {
  mark('a disk went back to a moment after its registration')
  store.logger.error('the disk is older than it was: all its replicas join again', {
    replicas: store.replicas.size,
  })
  for (const replica of store.replicas.values()) {
    for (const state of [replica.logged, replica.state]) {
      state.flags |= StateFlag.unclean | StateFlag.crashed | StateFlag.rolledBack
    }
    replica.joinPending = true
  }
  await store.log.snapshot()
}

/** Rule B3: durable before the server serves under the new registration. */
export async function recordRegistration(
  store: ChunkStore,
  server: number,
  registration: number,
  clusterUuid: string,
): Promise<void> {
  const known = clusterUuid === '' ? {} : { clusterUuid }
  await store.superblocks.change({ server, registration, ...known })
}
