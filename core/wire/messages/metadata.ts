/**
 * What a client (mount, export, program, command line) asks a metadata server on base port + 1.
 * One connection is one session; methods marked (mutation) are applied exactly once.
 */
import { Type } from '@sinclair/typebox'
import {
  Attributes,
  ChunkLocation,
  FileType,
  Mutation,
  PlacementAttributes,
  ServerAddress,
} from './common.ts'
import { checkMethods } from './checks.ts'
import { keyValueMethods } from './key-value.ts'
import { membershipMethods, registerMethods } from './membership.ts'
import { method, Nothing, UInt } from './method.ts'
import { pauseMethods, snapshotMethods } from './snapshots.ts'

/** Longer than any legal name, so that the state machine can answer ENAMETOOLONG itself. */
const Name = Type.String({ maxLength: 4096 })
const Node = Type.Object({ attributes: Attributes })
const Path = Type.String({ maxLength: 8192 })

/** What the holder knows better than the quorum (rule F8). */
const FileUpdate = {
  size: Type.Optional(UInt),
  modifySeconds: Type.Optional(Type.Integer()),
  modifyNanoseconds: Type.Optional(UInt),
}

export const sessionMethods = {
  /** Opens a session on this connection. */
  'session.open': method(
    Type.Object({
      name: Type.String({ maxLength: 255 }),
      host: Type.String({ maxLength: 255 }),
      kind: Type.String({ maxLength: 64 }),
    }),
    Type.Object({ session: UInt, secret: Type.String(), timeoutMs: UInt }),
  ),
  /** Continues a session on a new connection. `openInodes` re-declares open files (soft state). */
  'session.resume': method(
    Type.Object({
      session: UInt,
      secret: Type.String(),
      openInodes: Type.Array(UInt, { maxItems: 1_000_000 }),
    }),
    Type.Object({ timeoutMs: UInt }),
  ),
  /** Confirms the session; valid from the *sending* of the renewal (rule L1). Carries counters for `stat`. */
  'session.renew': method(
    Type.Object({ counters: Type.Optional(Type.Record(Type.String({ maxLength: 64 }), Type.Number())) }),
    Nothing,
  ),
  'session.close': method(Nothing, Nothing),
} as const

export const namespaceMethods = {
  'fs.lookup': method(Type.Object({ parent: UInt, name: Name }), Node),
  /** Absolute path inside the cluster; follows no symlinks. */
  'fs.resolve': method(Type.Object({ path: Path }), Node),
  'fs.getattr': method(Type.Object({ inode: UInt }), Node),
  /** (mutation) Size changes need the lease (rule T2) and go through `lease.truncate`. */
  'fs.setattr': method(
    Type.Object({
      mutation: Mutation,
      inode: UInt,
      mode: Type.Optional(UInt),
      uid: Type.Optional(UInt),
      gid: Type.Optional(UInt),
      accessSeconds: Type.Optional(Type.Integer()),
      accessNanoseconds: Type.Optional(UInt),
      modifySeconds: Type.Optional(Type.Integer()),
      modifyNanoseconds: Type.Optional(UInt),
      /** Set these times to the server's clock instead. */
      accessNow: Type.Optional(Type.Boolean()),
      modifyNow: Type.Optional(Type.Boolean()),
    }),
    Node,
  ),
  /** (mutation) Creates and opens; `exclusive` false opens an existing file. With `lease` the answer may carry one. */
  'fs.create': method(
    Type.Object({
      mutation: Mutation,
      parent: UInt,
      name: Name,
      mode: UInt,
      uid: UInt,
      gid: UInt,
      exclusive: Type.Boolean(),
      lease: Type.Boolean(),
    }),
    Type.Object({ attributes: Attributes, created: Type.Boolean(), lease: Type.Optional(UInt) }),
  ),
  /** (mutation) Directory, fifo, socket or device. */
  'fs.mknod': method(
    Type.Object({
      mutation: Mutation,
      parent: UInt,
      name: Name,
      type: FileType,
      mode: UInt,
      uid: UInt,
      gid: UInt,
      device: UInt,
    }),
    Node,
  ),
  /** (mutation) */
  'fs.symlink': method(
    Type.Object({
      mutation: Mutation,
      parent: UInt,
      name: Name,
      target: Type.String({ maxLength: 8192 }),
      uid: UInt,
      gid: UInt,
    }),
    Node,
  ),
  'fs.readlink': method(Type.Object({ inode: UInt }), Type.Object({ target: Type.String() })),
  /** (mutation) */
  'fs.link': method(Type.Object({ mutation: Mutation, inode: UInt, parent: UInt, name: Name }), Node),
  /** (mutation) `inode` is what was unlinked, `links` what is left. */
  'fs.unlink': method(
    Type.Object({ mutation: Mutation, parent: UInt, name: Name }),
    Type.Object({ inode: UInt, links: UInt }),
  ),
  /** (mutation) */
  'fs.rmdir': method(
    Type.Object({ mutation: Mutation, parent: UInt, name: Name }),
    Type.Object({ inode: UInt }),
  ),
  /** (mutation) `mode`: replace as rename(2), 'no-replace', or 'exchange'. `replaced` is the inode that lost its name. */
  'fs.rename': method(
    Type.Object({
      mutation: Mutation,
      parent: UInt,
      name: Name,
      newParent: UInt,
      newName: Name,
      mode: Type.Union([Type.Literal('replace'), Type.Literal('no-replace'), Type.Literal('exchange')]),
    }),
    Type.Object({ inode: UInt, replaced: Type.Optional(UInt) }),
  ),
  /** Entries in a stable order; continue with the last `cookie` (0 starts). '.' and '..' are not listed. */
  'fs.readdir': method(
    Type.Object({
      inode: UInt,
      cookie: UInt,
      limit: Type.Integer({ minimum: 1, maximum: 4096 }),
      plus: Type.Boolean(),
    }),
    Type.Object({
      parent: UInt,
      end: Type.Boolean(),
      entries: Type.Array(
        Type.Object({
          name: Type.String(),
          inode: UInt,
          type: FileType,
          cookie: UInt,
          attributes: Type.Optional(Attributes),
        }),
      ),
    }),
  ),
  /** Close-to-open: fresh attributes; the inode stays until `fs.close` even when unlinked. Counted per session. */
  'fs.open': method(Type.Object({ inode: UInt, truncate: Type.Boolean() }), Node),
  'fs.close': method(Type.Object({ inodes: Type.Array(UInt, { maxItems: 1024 }) }), Nothing),
  'fs.statfs': method(
    Nothing,
    Type.Object({
      totalBytes: UInt,
      freeBytes: UInt,
      availableBytes: UInt,
      files: UInt,
      filesFree: UInt,
      nameBytesMax: UInt,
    }),
  ),
  'fs.getxattr': method(Type.Object({ inode: UInt, name: Name }), Type.Object({ value: Type.Uint8Array() })),
  'fs.listxattr': method(Type.Object({ inode: UInt }), Type.Object({ names: Type.Array(Type.String()) })),
  /** (mutation) */
  'fs.setxattr': method(
    Type.Object({
      mutation: Mutation,
      inode: UInt,
      name: Name,
      value: Type.Uint8Array({ maxByteLength: 65536 }),
      mode: Type.Union([Type.Literal('set'), Type.Literal('create'), Type.Literal('replace')]),
    }),
    Nothing,
  ),
  /** (mutation) */
  'fs.removexattr': method(Type.Object({ mutation: Mutation, inode: UInt, name: Name }), Nothing),
  'attr.get': method(
    Type.Object({ inode: UInt }),
    Type.Object({ own: PlacementAttributes, effective: Type.Required(PlacementAttributes) }),
  ),
  /** (mutation) `recursive` applies to everything below as it is now; new files inherit anyway. */
  'attr.set': method(
    Type.Object({
      mutation: Mutation,
      inode: UInt,
      recursive: Type.Boolean(),
      attributes: PlacementAttributes,
    }),
    Type.Object({ changed: UInt }),
  ),
} as const

/** With the addresses of every server named. */
const locatedFields = {
  locations: Type.Array(ChunkLocation),
  servers: Type.Array(ServerAddress),
  generation: UInt,
}
const Located = Type.Object(locatedFields)
export const leaseMethods = {
  /**
   * (mutation) The write lease of a file. Recalls it from another holder first; EBUSY after the recall
   * deadline. `zeroFrom`: the tail that must be zeroed before the size may grow past it (rule T1).
   */
  'lease.acquire': method(
    Type.Object({ mutation: Mutation, inode: UInt, pinned: Type.Boolean() }),
    Type.Object({
      lease: UInt,
      attributes: Attributes,
      zeroFrom: Type.Optional(UInt),
      /** Indexes of chunks that a dead holder left and nobody has reconciled: a flush waits for them (rule F4). */
      dirty: Type.Optional(Type.Array(UInt)),
    }),
  ),
  /** (mutation) Size and times to the quorum; the lease stays (rule F8). */
  'lease.update': method(Type.Object({ mutation: Mutation, inode: UInt, lease: UInt, ...FileUpdate }), Node),
  /** (mutation) After flush, with all intents given back. */
  'lease.release': method(
    Type.Object({ mutation: Mutation, inode: UInt, lease: UInt, ...FileUpdate }),
    Nothing,
  ),
  /** (mutation) As `lease.release` of many; leases that have ended are passed over. */
  'lease.return': method(
    Type.Object({
      mutation: Mutation,
      leases: Type.Array(Type.Object({ inode: UInt, lease: UInt }), { maxItems: 1024 }),
    }),
    Nothing,
  ),
  /** (mutation) Sets the size under the lease: drops whole chunks, marks the tail (rule T1). */
  'lease.truncate': method(
    Type.Object({ mutation: Mutation, inode: UInt, lease: UInt, size: UInt }),
    Type.Object({ attributes: Attributes, zeroFrom: Type.Optional(UInt) }),
  ),
  /** (mutation) The tail has been zeroed on all members. */
  'lease.zeroed': method(
    Type.Object({ mutation: Mutation, inode: UInt, lease: UInt, zeroFrom: UInt }),
    Nothing,
  ),
  /** (mutation) Unmaps whole chunks (hole punching); the holder has nothing in flight there. */
  'lease.unmap': method(
    Type.Object({
      mutation: Mutation,
      inode: UInt,
      lease: UInt,
      indexes: Type.Array(UInt, { maxItems: 1024 }),
    }),
    Nothing,
  ),
  /**
   * Write intents for chunks of a file (created when missing). Reserves space: ENOSPC is said here
   * (rule A2). `sizeLimit` is the provisional upper size (rule F8). Waits for running reconfigurations.
   * `limits`: for each index the end, within the chunk, up to which room is asked for; the whole chunk up to
   * `sizeLimit` when it is missing. The answer says for each location up to where may be written: more than
   * was asked for where the file has these bytes already. Asked again with more while writing goes on.
   */
  'intent.grant': method(
    Type.Object({
      inode: UInt,
      lease: UInt,
      indexes: Type.Array(UInt, { minItems: 1, maxItems: 64 }),
      sizeLimit: UInt,
      limits: Type.Optional(Type.Array(UInt, { maxItems: 64 })),
    }),
    Type.Object({ ...locatedFields, limits: Type.Optional(Type.Array(UInt)) }),
  ),
  /** After flush; the client stopped using them before it asks (rule L7). */
  'intent.clear': method(
    Type.Object({ inode: UInt, lease: UInt, chunks: Type.Array(UInt, { maxItems: 1024 }) }),
    Nothing,
  ),
  /** For reading. Chunks that do not exist are left out: they read as zeros. */
  'chunk.locate': method(
    Type.Object({ inode: UInt, indexes: Type.Array(UInt, { minItems: 1, maxItems: 64 }) }),
    Located,
  ),
  /**
   * A member did not answer, or answered with an error. A report is a request: the server checks for
   * itself (rule A1). Answers with the next active epoch, or TRY_AGAIN: hold and report again.
   */
  'chunk.report': method(
    Type.Object({
      inode: UInt,
      chunk: UInt,
      version: UInt,
      server: UInt,
      reason: Type.String({ maxLength: 64 }),
      /** 'failed': take it out of the epoch. 'bad-page': repair it, it stays (rule R1). */
      kind: Type.Union([Type.Literal('failed'), Type.Literal('bad-page')]),
      page: Type.Optional(UInt),
    }),
    Located,
  ),
} as const

export const adminMethods = {
  'admin.stat': method(Nothing, Type.Unknown()),
  'admin.events': method(
    Type.Object({ after: UInt, limit: Type.Integer({ minimum: 1, maximum: 1000 }) }),
    Type.Object({
      events: Type.Array(
        Type.Object({
          id: UInt,
          timeMs: Type.Number(),
          system: Type.String(),
          severity: Type.Union([Type.Literal('info'), Type.Literal('warn'), Type.Literal('err')]),
          code: Type.String(),
          message: Type.String(),
        }),
      ),
      last: UInt,
    }),
  ),
  'admin.services': method(Nothing, Type.Unknown()),
  'admin.getConfig': method(
    Nothing,
    Type.Object({ values: Type.Record(Type.String(), Type.Union([Type.Number(), Type.String()])) }),
  ),
  'admin.setConfig': method(
    Type.Object({
      mutation: Mutation,
      key: Type.String({ maxLength: 128 }),
      value: Type.String({ maxLength: 128 }),
    }),
    Nothing,
  ),
  ...checkMethods,
  ...membershipMethods,
} as const

export const metadataMethods = {
  ...sessionMethods,
  ...namespaceMethods,
  ...leaseMethods,
  ...snapshotMethods,
  ...keyValueMethods,
  ...adminMethods,
} as const
export type MetadataMethods = typeof metadataMethods

/** What a metadata server asks or tells a client, on the same connection. */
export const clientMethods = {
  ...registerMethods,
  ...pauseMethods,
  /** Drain, flush, surrender intents and release within `deadlineMs` (rule L9). */
  'lease.recall': method(Type.Object({ inode: UInt, lease: UInt, deadlineMs: UInt }), Nothing),
  /** Scrubbing: flush these chunks and clear their intents; they may be asked for again at once (rule R2). */
  'intent.recall': method(
    Type.Object({ inode: UInt, lease: UInt, chunks: Type.Array(UInt, { maxItems: 1024 }) }),
    Nothing,
  ),
  /** The epoch of chunks under the client's intents changed: what is unanswered is sent again. */
  'chunk.moved': method(
    Type.Object({ inode: UInt, locations: Type.Array(ChunkLocation), servers: Type.Array(ServerAddress) }),
    Nothing,
  ),
  /** Somebody else changed these: drop what is cached. `all` when the bounded queue overflowed. */
  'cache.invalidate': method(
    Type.Object({
      all: Type.Boolean(),
      inodes: Type.Array(UInt),
      entries: Type.Array(Type.Object({ parent: UInt, name: Type.String() })),
    }),
    Nothing,
  ),
} as const
export type ClientMethods = typeof clientMethods
