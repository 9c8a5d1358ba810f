/**
 * The faces of the client library. Exports (FUSE, iSCSI, NFS) and programs use exactly these.
 * Positional calls take callbacks because they are the data path; namespace calls return promises.
 * Errors are CairnErrors with a WireCode (ENOENT, EIO, ENOSPC, …).
 */
import type { CairnError } from '../base/errors.ts'
import type { MetadataServers } from '../discovery/metadata-servers.ts'
import type { Attributes, FileType, PlacementAttributes } from '../wire/messages/common.ts'

export interface ConnectOptions {
  readonly cluster: string
  /** Base addresses of metadata servers, "HOST:PORT"; or where to ask for them, again and again. */
  readonly metadataServers: readonly string[] | MetadataServers
  /** Shown in `stat`: what this client is ("fuse", "iscsi", …) and its name. */
  readonly kind: string
  readonly name: string
  /** Fail an operation that has been held this long; 0 (default): hold without limit. */
  readonly holdTimeoutMs?: number
  /** Bytes of data requests in flight to chunk servers, all files together. Default 64 MiB. */
  readonly inFlightBytesMax?: number
  /**
   * Id of a chunk server that is asked first wherever it holds an in-sync replica: one on the same host, or
   * one whose replicas are to be looked at. 0 (default): reads are spread over all replicas.
   */
  readonly preferredServer?: number
}

export type IoCallback = (error: CairnError | null) => void
/** `borrowedData` is valid until the callback returns; shorter than asked only at end of file. */
export type ReadCallback = (error: CairnError | null, borrowedData: Buffer) => void

/** Cancels the *answer* of an operation that is held, never the obligation (rule E11). */
export interface Operation {
  cancel(): void
}

export interface Credentials {
  readonly uid: number
  readonly gid: number
}

export interface TimeUpdate {
  readonly seconds: number
  readonly nanoseconds: number
}

export interface AttributeUpdate {
  readonly mode?: number
  readonly uid?: number
  readonly gid?: number
  readonly access?: TimeUpdate | 'now'
  readonly modify?: TimeUpdate | 'now'
}

export interface DirectoryEntry {
  readonly name: string
  readonly inode: number
  readonly type: FileType
  /** Pass to `readdir` to go on behind this entry. */
  readonly cookie: number
  readonly attributes?: Attributes
}

export interface FileSystemStatus {
  readonly totalBytes: number
  readonly freeBytes: number
  readonly availableBytes: number
  /** In use. */
  readonly files: number
  readonly filesFree: number
  readonly nameBytesMax: number
}

/** By inode, as a file system export needs it. Attributes include what this client's own leases know better. */
export interface FileSystem {
  lookup(parent: number, name: string): Promise<Attributes>
  resolve(path: string): Promise<Attributes>
  attributes(inode: number): Promise<Attributes>
  setAttributes(inode: number, update: AttributeUpdate): Promise<Attributes>
  makeDirectory(parent: number, name: string, mode: number, owner: Credentials): Promise<Attributes>
  makeNode(
    parent: number,
    name: string,
    type: FileType,
    mode: number,
    device: number,
    owner: Credentials,
  ): Promise<Attributes>
  symlink(parent: number, name: string, target: string, owner: Credentials): Promise<Attributes>
  readlink(inode: number): Promise<string>
  link(inode: number, parent: number, name: string): Promise<Attributes>
  unlink(parent: number, name: string): Promise<void>
  removeDirectory(parent: number, name: string): Promise<void>
  rename(
    parent: number,
    name: string,
    newParent: number,
    newName: string,
    mode: 'replace' | 'no-replace' | 'exchange',
  ): Promise<void>
  readDirectory(
    inode: number,
    cookie: number,
    limit: number,
    plus: boolean,
  ): Promise<{ parent: number; entries: DirectoryEntry[]; end: boolean }>
  status(): Promise<FileSystemStatus>
  getExtendedAttribute(inode: number, name: string): Promise<Buffer>
  setExtendedAttribute(
    inode: number,
    name: string,
    value: Buffer,
    mode: 'set' | 'create' | 'replace',
  ): Promise<void>
  listExtendedAttributes(inode: number): Promise<string[]>
  removeExtendedAttribute(inode: number, name: string): Promise<void>
  getPlacement(inode: number): Promise<{ own: PlacementAttributes; effective: Required<PlacementAttributes> }>
  setPlacement(inode: number, attributes: PlacementAttributes, recursive: boolean): Promise<number>
  /** Creates (or with exclusive=false opens) and opens. */
  create(
    parent: number,
    name: string,
    mode: number,
    owner: Credentials,
    exclusive: boolean,
  ): Promise<{ attributes: Attributes; file: File; created: boolean }>
  open(inode: number, options?: { readonly truncate?: boolean }): Promise<File>
}

/** One open of one file. All opens of a file in one client share lease, cache and errors. */
export interface File {
  readonly inode: number
  /** As of now, with this client's own writes. */
  attributes(): Attributes
  read(offset: number, length: number, callback: ReadCallback): Operation
  /** `borrowedData` until the callback. Acknowledged when all members of one active epoch answered. */
  write(offset: number, borrowedData: Buffer, callback: IoCallback): Operation
  /** fsync: data durable on every member, size and times in the quorum (rules F1-F8). EIO once if bytes were lost. */
  flush(callback: IoCallback): Operation
  /** Size and times to the quorum (close-to-open), without a disk flush. */
  publish(callback: IoCallback): Operation
  truncate(size: number): Promise<Attributes>
  /** Zeros and unmaps; `keepSize` false extends the file when the range ends behind it. */
  zero(offset: number, length: number, keepSize: boolean): Promise<void>
  /** fallocate(2) without flags: reserve (grant and create chunks), extend unless keepSize. */
  allocate(offset: number, length: number, keepSize: boolean): Promise<void>
  /** Does not flush. The last close of an unlinked file lets it be collected. */
  close(): void
  /** Sequential faces: read-ahead and write gathering inside. */
  createReadStream(options?: {
    readonly start?: number
    readonly end?: number
  }): import('node:stream').Readable
  createWriteStream(options?: { readonly start?: number }): import('node:stream').Writable
}

/** A file as a disk: pinned lease from open on (rule L5), fixed size. */
export interface BlockDevice {
  readonly sizeBytes: number
  read(offset: number, length: number, callback: ReadCallback): Operation
  write(offset: number, borrowedData: Buffer, callback: IoCallback): Operation
  flush(callback: IoCallback): Operation
  discard(offset: number, length: number, callback: IoCallback): Operation
  close(): Promise<void>
}

/** What a file contained at one moment. Its id is the number of an inode without a name: `open` it to read. */
export interface Snapshot {
  readonly snapshot: number
  /** Inode of the file; it may be gone. */
  readonly source: number
  readonly sourceExists: boolean
  readonly name: string
  /** What the file was called then. */
  readonly path: string
  readonly timeMs: number
  readonly size: number
  /** In its list. */
  readonly chunks: number
  /** False: it is being made, or rolled back to. */
  readonly ready: boolean
}

export interface SnapshotInfo extends Snapshot {
  /** Chunks that nobody else holds: freed with it. */
  readonly ownChunks: number
  readonly sharedChunks: number
}

/**
 * Snapshots and clones of files. What has not changed since is shared, nothing is copied. Whoever writes a file is
 * paused for a moment: everything acknowledged before is in, durably, nothing issued after the answer (rule S1).
 * EBUSY: the writer did not pause within `mds.lease.recall_tout`. EIO: the session expired before the answer; it may
 * have happened. FEATURE_LEVEL: a server is too old.
 */
export interface Snapshots {
  /**
   * Resolves with its id. `name`: 1 to 255 bytes without '/' and NUL, once per file (EEXIST); `path` is kept for people.
   * QUOTA: the file, or the cluster, has as many as there may be.
   */
  create(inode: number, name: string, path: string): Promise<number>
  /** Of one file, or of all (default), by rising id. */
  list(source?: number): Promise<Snapshot[]>
  info(snapshot: number): Promise<SnapshotInfo>
  /** The file and its other snapshots stay as they are; who has it open reads on. */
  delete(snapshot: number): Promise<void>
  /** A new file with the contents of `source`, a snapshot or a file. Resolves with its inode. */
  clone(source: number, parent: number, name: string, owner: Credentials): Promise<number>
  /** Its file gets the contents and the size it had; what was written since is gone. Resolves with the file's inode. */
  rollback(snapshot: number): Promise<number>
}

export interface CacheInvalidation {
  readonly all: boolean
  readonly inodes: readonly number[]
  readonly entries: readonly { readonly parent: number; readonly name: string }[]
}

export interface KeyValueEntry {
  readonly key: string
  readonly value: Buffer
  /** Of the last change: rises with every change of the cluster's state, is never used twice. */
  readonly revision: number
  /** Of the change that made the key. */
  readonly created: number
  /** The key ends with the session that wrote it last. */
  readonly isBound: boolean
}

/** What a key must be for a transaction to happen: absent, or of a revision, or of a value. */
export type KeyValueExpectation = 'absent' | { readonly revision: number } | { readonly value: Uint8Array }

export interface KeyValueGuard {
  readonly key: string
  readonly expected: KeyValueExpectation
}

export interface KeyValueWriteOptions {
  /** The key is deleted when this client's session ends: closed, or not heard of for `mds.session_tout`. */
  readonly bindToSession?: boolean
}

export interface KeyValueWrite extends KeyValueWriteOptions {
  readonly key: string
  /** Null: delete. */
  readonly value: Uint8Array | null
}

export type KeyValueOutcome =
  | { readonly succeeded: true; readonly revision: number }
  | {
      readonly succeeded: false
      /** Of the state in which the guards were looked at. */
      readonly revision: number
      readonly failedGuard: number
      /** What the key of that guard held; null: nothing. */
      readonly value: Buffer | null
      /** Revisions of the keys of all guards; 0: absent. */
      readonly present: readonly number[]
    }

export interface KeyValuePage {
  /** Of the state that was read. */
  readonly revision: number
  readonly entries: readonly KeyValueEntry[]
  readonly end: boolean
}

export type KeyValueChange =
  | ({ readonly kind: 'put' } & KeyValueEntry)
  | { readonly kind: 'delete'; readonly key: string; readonly revision: number }

export type KeyValueEvent =
  /** Everything there is now; whatever was known before is replaced by it. The first event, perhaps a later one. */
  | { readonly kind: 'state'; readonly revision: number; readonly entries: readonly KeyValueEntry[] }
  /** All changes of one revision: of one transaction, or of the end of a session. */
  | { readonly kind: 'changes'; readonly revision: number; readonly changes: readonly KeyValueChange[] }

/**
 * Small replicated facts of one namespace (1 to 64 of a-z, 0-9, '.', '-'), linearizable. Keys are texts of at
 * most 512 bytes, values at most 64 KiB, a transaction at most 64 guards and 64 writes, 512 KiB together.
 * Errors: EINVAL (form), TOO_LARGE, QUOTA (`mds.kv.bytes`, `mds.kv.namespace_bytes`, bound keys), EIO (the
 * session expired before the answer came: it may have been applied).
 */
export interface KeyValue {
  readonly namespace: string
  get(key: string): Promise<KeyValueEntry | null>
  /** All keys with the prefix as of one revision, in the order of their UTF-16 code units. */
  list(prefix?: string): Promise<{ readonly revision: number; readonly entries: readonly KeyValueEntry[] }>
  /**
   * One page behind the key `after`. Pass the `revision` of the first page with the others; COMPACTED when
   * too much has changed since.
   */
  listPage(
    prefix: string,
    options?: { readonly after?: string; readonly limit?: number; readonly revision?: number },
  ): Promise<KeyValuePage>
  /** Resolves with the new revision. A key that was bound to a session is so no longer, unless this says it. */
  put(key: string, value: Uint8Array, options?: KeyValueWriteOptions): Promise<number>
  /** Also when there was no such key. */
  delete(key: string): Promise<number>
  compareAndSet(
    key: string,
    expected: KeyValueExpectation,
    value: Uint8Array | null,
    options?: KeyValueWriteOptions,
  ): Promise<KeyValueOutcome>
  /** All writes, when all guards hold; else none. Each key is written once. */
  transact(guards: readonly KeyValueGuard[], writes: readonly KeyValueWrite[]): Promise<KeyValueOutcome>
  /**
   * First the present state, then every change, each revision once and in order, through losses of
   * connections and masters. Who falls too far behind gets the state again. Ends when `signal` aborts.
   */
  watch(prefix?: string, options?: { readonly signal?: AbortSignal }): AsyncIterable<KeyValueEvent>
}

export interface Client {
  readonly fileSystem: FileSystem
  readonly snapshots: Snapshots
  /** The replicated key-value store; a namespace needs no making. */
  keyValue(namespace: string): KeyValue
  openBlockDevice(path: string): Promise<BlockDevice>
  /** Somebody else's changes; an export drops what the kernel cached. Returns an unsubscribe function. */
  onInvalidate(listener: (invalidation: CacheInvalidation) => void): () => void
  /** For `stat` and `top`. */
  counters(): Readonly<Record<string, number>>
  /** Flushes everything, gives back all leases, closes the session. */
  close(): Promise<void>
}
