/** Shapes that several messages share. Sizes in bytes; inode and chunk ids are integers that are never reused. */
import { type Static, Type } from '@sinclair/typebox'
import { UInt } from './method.ts'

export const NAME_BYTES_MAX = 255
export const PATH_BYTES_MAX = 4095
export const ROOT_INODE = 1

export const FileType = Type.Union([
  Type.Literal('file'),
  Type.Literal('directory'),
  Type.Literal('symlink'),
  Type.Literal('fifo'),
  Type.Literal('socket'),
  Type.Literal('block-device'),
  Type.Literal('character-device'),
])
export type FileType = Static<typeof FileType>

/** POSIX attributes. `mode` holds the permission bits only (07777); the kind is `type`. */
export const Attributes = Type.Object({
  inode: UInt,
  type: FileType,
  mode: UInt,
  uid: UInt,
  gid: UInt,
  links: UInt,
  size: UInt,
  /** Logical bytes in allocated chunks; st_blocks = allocated / 512. */
  allocated: UInt,
  device: UInt,
  accessSeconds: Type.Integer(),
  accessNanoseconds: UInt,
  modifySeconds: Type.Integer(),
  modifyNanoseconds: UInt,
  changeSeconds: Type.Integer(),
  changeNanoseconds: UInt,
  /** Rises with every epoch change of one of its chunks and every lease that got an intent (rule E4). */
  generation: UInt,
})
export type Attributes = Static<typeof Attributes>

export const Role = Type.Union([Type.Literal('in-sync'), Type.Literal('joining')])
export type Role = Static<typeof Role>

export const Member = Type.Object({
  server: UInt,
  role: Role,
  /** Version since which it is continuously in sync (rule E8): who vouches for what at a flush (rule F5). */
  since: Type.Optional(UInt),
})
export type Member = Static<typeof Member>

/** Where one chunk of a file is, under the grant that fetched it (rule E4). */
export const ChunkLocation = Type.Object({
  /** Position in the file: byte offset / 64 MiB. */
  index: UInt,
  chunk: UInt,
  version: UInt,
  /** False below `min`: writes are held (rule A4). */
  writable: Type.Boolean(),
  /** The epoch that began with what a crashed replica had: writes that were acknowledged before may be gone (rule F5). */
  lossVersion: Type.Optional(UInt),
  members: Type.Array(Member, { maxItems: 32 }),
})
export type ChunkLocation = Static<typeof ChunkLocation>

export const ServerAddress = Type.Object({
  server: UInt,
  host: Type.String({ maxLength: 255 }),
  port: UInt,
  active: Type.Boolean(),
})
export type ServerAddress = Static<typeof ServerAddress>

/** Every command that changes state carries this, so that a repeated one is applied once. */
export const Mutation = Type.Object({
  /** Rises by one per mutating request of a session. */
  sequence: UInt,
  /** All answers below this number have arrived: their results may be forgotten. */
  acknowledgedBelow: UInt,
})
export type Mutation = Static<typeof Mutation>

/** `replicas=norm:min`, failure domain and tier, as set; undefined = inherited. */
export const PlacementAttributes = Type.Object({
  replicasNormal: Type.Optional(Type.Integer({ minimum: 1, maximum: 15 })),
  replicasMinimum: Type.Optional(Type.Integer({ minimum: 1, maximum: 15 })),
  failureDomain: Type.Optional(
    Type.Union([
      Type.Literal('disk'),
      Type.Literal('host'),
      Type.Literal('rack'),
      Type.Literal('row'),
      Type.Literal('room'),
    ]),
  ),
  tier: Type.Optional(Type.Integer({ minimum: 0, maximum: 3 })),
})
export type PlacementAttributes = Static<typeof PlacementAttributes>
