/**
 * The faces of the client library. Exports (FUSE, iSCSI, NFS) and programs use exactly these.
 * Positional calls take callbacks because they are the data path; namespace calls return promises.
 * Errors are CairnErrors with a WireCode (ENOENT, EIO, ENOSPC, …).
 */
import type { CairnError } from '../base/errors.ts'
import type { Attributes, FileType, PlacementAttributes } from '../wire/messages/common.ts'

export interface ConnectOptions {
  readonly cluster: string
  /** Base addresses of metadata servers, "HOST:PORT". */
  readonly metadataServers: readonly string[]
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

export interface CacheInvalidation {
  readonly all: boolean
  readonly inodes: readonly number[]
  readonly entries: readonly { readonly parent: number; readonly name: string }[]
}

export interface Client {
  readonly fileSystem: FileSystem
  openBlockDevice(path: string): Promise<BlockDevice>
  /** Somebody else's changes; an export drops what the kernel cached. Returns an unsubscribe function. */
  onInvalidate(listener: (invalidation: CacheInvalidation) => void): () => void
  /** For `stat` and `top`. */
  counters(): Readonly<Record<string, number>>
  /** Flushes everything, gives back all leases, closes the session. */
  close(): Promise<void>
}
