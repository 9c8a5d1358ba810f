/**
 * The replicated state: what the quorum remembers, in memory. Changed only by `apply` (and filled once by
 * loading); everybody else reads. `collectChanges` gives the rows that the Store lacks.
 */
import { createHash } from 'node:crypto'
import type { ShardedSet } from '../../base/sharded.ts'
import type { PackedRows } from '../../platform/packed-rows.ts'
import type { RowChange } from '../../platform/store.ts'
import { ROOT_INODE } from '../../wire/messages/common.ts'
import { metadataError } from '../errors.ts'
import { KeyValueTable } from '../keyvalue/key-value-table.ts'
import { CondemnedTable } from './condemned-table.ts'
import { Counters } from './counters.ts'
import { DirectoryTable } from './directories.ts'
import { FeatureLevel } from './feature-levels.ts'
import { InodeTable } from './inode-table.ts'
import { ReplyTable } from './replies.ts'
import type {
  CopyRow,
  EventRow,
  InodeFields,
  InodeRow,
  LeaseRow,
  MemberRow,
  ServerRow,
  SessionRow,
  SnapshotRow,
  UnsettledRow,
} from './rows.ts'
import { type ChangeTracked, fieldsCodec, numberKey, stringKey, Table } from './table.ts'

/** Files, directories and everything else; V8 maps end at 2^24 entries. */
export const INODE_COUNT_MAX = 16_000_000
/** Chunks that are put into the lists of their files in one step of loading. */
const FINISHED_SLOTS_MAX = 1_024
/** The event log keeps this many. */
export const EVENT_COUNT_MAX = 10_000

/**
 * The chunk table (columns in typed arrays, `chunks/`). A row exists exactly as long as a file or snapshot has the
 * chunk in its list, or an overlay reads through it: the lists are rebuilt from these rows. What is left of a
 * dropped chunk is in `condemned`.
 */
export interface ChunkTracked extends ChangeTracked {
  readonly size: number
  /** Lets go of its columns. */
  retire?(): void
  /** Visits the holders of chunks in up to `slotCount` places from `fromSlot` on, and returns where to go on, or -1 at the end. */
  scanMapped(
    fromSlot: number,
    slotCount: number,
    visit: (chunk: number, inode: number, index: number) => void,
  ): number
}

export type ConfigValue = string | number

export class MetadataState<Chunks extends ChunkTracked = ChunkTracked> {
  readonly inodes = new InodeTable()
  readonly entries = new DirectoryTable()
  readonly chunks: Chunks
  readonly sessions = new Table<number, SessionRow>('sessions', {
    ...numberKey,
    ...fieldsCodec<SessionRow>(['session', 'secret', 'name', 'host', 'kind', 'openedAtTickMs']),
  })
  readonly leases = new Table<number, LeaseRow>('leases', {
    ...numberKey,
    ...fieldsCodec<LeaseRow>(['lease', 'inode', 'session', 'pinned']),
  })
  readonly servers = new Table<number, ServerRow>('servers', {
    ...numberKey,
    ...fieldsCodec<ServerRow>(
      [
        'server',
        'storeUuid',
        'registration',
        'registrationConfirmed',
        'incarnation',
        'crashes',
        'hostId',
        'hostName',
        'location',
        'tier',
        'host',
        'port',
        'totalBytes',
        'checksums',
        'state',
        // From feature level 3 on, last: left out where nothing is known.
        'marks',
      ],
      1,
    ),
  })
  /** By chunk. */
  readonly unsettled = new Table<number, UnsettledRow>('unsettled', {
    ...numberKey,
    ...fieldsCodec<UnsettledRow>(['index']),
  })
  /** Metadata servers. Removed ones stay, so that no id is used twice. */
  readonly members = new Table<number, MemberRow>('members', {
    ...numberKey,
    ...fieldsCodec<MemberRow>(['member', 'host', 'port', 'name', 'state']),
  })
  readonly condemned = new CondemnedTable()
  readonly events = new Table<number, EventRow>('events', {
    ...numberKey,
    ...fieldsCodec<EventRow>(['id', 'timeMs', 'system', 'severity', 'code', 'message']),
  })
  readonly config = new Table<string, ConfigValue>('config', {
    ...stringKey,
    encode: (value) => JSON.stringify(value),
    decode: (value) => value as ConfigValue,
  })
  readonly snapshots = new Table<number, SnapshotRow>('snapshots', {
    ...numberKey,
    ...fieldsCodec<SnapshotRow>(['snapshot', 'source', 'name', 'path', 'seconds', 'nanoseconds']),
  })
  /** By target. */
  readonly copies = new Table<number, CopyRow>('copies', {
    ...numberKey,
    ...fieldsCodec<CopyRow>(['target', 'source', 'kind', 'parent', 'name']),
  })
  readonly counters = new Counters()
  readonly replies = new ReplyTable()
  readonly keyValue = new KeyValueTable()
  /** The format of all other tables; its row lies beside them. */
  readonly level = new FeatureLevel()

  // Soft indexes, kept by observers and rebuilt by loading.
  /** The one write lease of a file. */
  readonly leaseByInode = new Map<number, number>()
  readonly leasesBySession = new Map<number, Set<number>>()
  readonly snapshotsBySource = new Map<number, Set<number>>()
  /** Inodes whose chunk list is being taken over, and how often. */
  private readonly copied = new Map<number, number>()

  private ordered: readonly ChangeTracked[] = []
  private byName: ReadonlyMap<string, ChangeTracked> = new Map()

  constructor(chunks: Chunks) {
    this.chunks = chunks
    this.nameTables()
    this.leases.observe({
      onSet: (lease, row) => this.indexLease(lease, row),
      onDelete: (lease, row) => this.unindexLease(lease, row),
    })
    this.snapshots.observe({
      onSet: (snapshot, row) => this.indexSnapshot(snapshot, row),
      onDelete: (snapshot, row) => this.unindexSnapshot(snapshot, row),
    })
    this.copies.observe({
      onSet: (_target, row) => this.countCopy(row, 1),
      onDelete: (_target, row) => this.countCopy(row, -1),
    })
    this.inodes.add(rootRow())
  }

  /**
   * Another state takes the place of this one: lets go of all that is large, so that memory never holds both. What
   * tells who the cluster and its members are stays until then.
   */
  retire(): void {
    Object.assign(this, {
      inodes: new InodeTable(),
      entries: new DirectoryTable(),
      condemned: new CondemnedTable(),
    })
    this.chunks.retire?.()
    this.nameTables()
  }

  private nameTables(): void {
    this.ordered = this.tables()
    this.byName = new Map([this.level, ...this.ordered].map((table) => [table.name, table]))
  }

  tables(): readonly ChangeTracked[] {
    return [
      this.inodes,
      this.entries,
      this.chunks,
      this.sessions,
      this.leases,
      this.servers,
      this.members,
      this.condemned,
      this.events,
      this.config,
      this.snapshots,
      this.copies,
      this.unsettled,
      this.counters,
      this.replies,
      this.keyValue,
    ]
  }

  /** Inodes without a name that wait for file.collect. */
  get orphans(): Pick<ShardedSet, 'has' | 'size' | typeof Symbol.iterator> {
    return this.inodes.orphans
  }

  /** Its chunk list is being taken over, or takes over another: it must stay as it is. */
  isFrozen(inode: number): boolean {
    return this.copies.has(inode) || this.copied.has(inode)
  }

  /** The inode lost its last name. Call after setting `links` to 0. */
  markOrphan(row: InodeRow): void {
    this.inodes.orphans.add(row.inode)
    this.inodes.touch(row.inode)
  }

  recordEvent(event: Omit<EventRow, 'id'>): EventRow {
    const row: EventRow = { id: this.counters.take('nextEvent'), ...event }
    this.events.set(row.id, row)
    this.events.delete(row.id - EVENT_COUNT_MAX)
    return row
  }

  /** At least so many rows `collectChanges` would give. */
  get changedCount(): number {
    let count = 0
    for (const table of this.ordered) count += table.changedCount
    return count
  }

  collectChanges(): RowChange[] {
    const changes: RowChange[] = []
    this.level.collectChanges(changes)
    for (const table of this.tables()) table.collectChanges(changes)
    return changes
  }

  loadRow(table: string, key: string, value: string): void {
    this.tableNamed(table).loadRow(key, value)
  }

  loadRows(name: string, borrowedRows: PackedRows): void {
    const table = this.tableNamed(name)
    while (borrowedRows.next()) {
      if (table.loadPacked?.(borrowedRows) === true) continue
      borrowedRows.rewind()
      table.loadRow(borrowedRows.text(), borrowedRows.text())
    }
  }

  /** After the last row, all at once. */
  finishLoad(): void {
    for (let slot = 0; slot >= 0; ) slot = this.finishLoadFrom(slot)
  }

  /** A step of it, short enough for one turn: begins at 0, returns where to go on, or -1 when nothing is left. */
  finishLoadFrom(slot: number): number {
    return this.chunks.scanMapped(slot, FINISHED_SLOTS_MAX, (chunk, inode, index) => {
      if (this.inodes.placeChunk(inode, index, chunk)) return
      throw metadataError('ROW_CORRUPT', `chunk ${chunk} names lost inode ${inode}`)
    })
  }

  private tableNamed(name: string): ChangeTracked {
    const found = this.byName.get(name)
    if (found === undefined) throw metadataError('STATE_FORMAT', `unknown table ${name}`)
    return found
  }

  private indexLease(lease: number, row: LeaseRow): void {
    this.leaseByInode.set(row.inode, lease)
    let leases = this.leasesBySession.get(row.session)
    if (leases === undefined) {
      leases = new Set()
      this.leasesBySession.set(row.session, leases)
    }
    leases.add(lease)
  }

  private indexSnapshot(snapshot: number, { source }: SnapshotRow): void {
    const known = this.snapshotsBySource.get(source)
    if (known === undefined) this.snapshotsBySource.set(source, new Set([snapshot]))
    else known.add(snapshot)
  }

  private unindexSnapshot(snapshot: number, { source }: SnapshotRow): void {
    const known = this.snapshotsBySource.get(source)
    known?.delete(snapshot)
    if (known?.size === 0) this.snapshotsBySource.delete(source)
  }

  private countCopy({ source }: CopyRow, difference: number): void {
    const count = (this.copied.get(source) ?? 0) + difference
    if (count === 0) this.copied.delete(source)
    else this.copied.set(source, count)
  }

  private unindexLease(lease: number, row: LeaseRow): void {
    if (this.leaseByInode.get(row.inode) === lease) this.leaseByInode.delete(row.inode)
    const leases = this.leasesBySession.get(row.session)
    leases?.delete(lease)
    if (leases?.size === 0) this.leasesBySession.delete(row.session)
  }
}

/** Equal for equal states, however they came about: SHA-256 over all rows in sorted order. */
export function stateDigest(state: MetadataState): string {
  const hash = createHash('sha256')
  for (const table of [state.level, ...state.tables()]) {
    const lines: string[] = []
    for (const [key, value] of table.rows()) lines.push(`${key}\0${value}\n`)
    hash.update(`${table.name}\n`)
    for (const line of lines.sort()) hash.update(line)
  }
  return hash.digest('hex')
}

/** The root exists before the first command, so its times are zero until something is made in it. */
function rootRow(): InodeFields {
  return {
    inode: ROOT_INODE,
    type: 'directory',
    mode: 0o755,
    uid: 0,
    gid: 0,
    links: 2,
    size: 0,
    device: 0,
    accessSeconds: 0,
    accessNanoseconds: 0,
    modifySeconds: 0,
    modifyNanoseconds: 0,
    changeSeconds: 0,
    changeNanoseconds: 0,
    generation: 0,
    parent: ROOT_INODE,
  }
}
