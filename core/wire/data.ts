/**
 * Data operations: fixed binary meta in front of a payload, no msgpack, no promises.
 * A frame's meta begins with one of the layouts below (little-endian); the page checksum table follows
 * it where the layout says so. Chunk ids, leases, sessions and incarnations are u64 below 2^53.
 *
 * Checksum table: one CRC32C for each 4 KiB page of the chunk that [offset, offset+length) touches, over
 * the bytes of that page that travel in this frame (whole page or the piece). The payload has no other
 * checksum. Sender computes, receiver verifies (rule P5); for whole pages it is what is stored.
 *
 *   request        op  u8 · flags u8 · reserved u16 · version u32 · chunk u64 · lease u64 · session u64
 *                  incarnation u64 · offset u32 · length u32                     = 48 bytes [+ table]
 *   answer         op  u8 · flags u8 · code u16 (0 = ok) · version u32 · incarnation u64
 *                  crashes u32 · reserved u32 · offset u32 · length u32          = 32 bytes [+ table]
 */

export const DataOp = {
  /** Payload = length bytes; table follows. Any offset and length inside the chunk, at most 1 MiB. */
  write: 1,
  /** Answer carries payload and table, or flag `zeros` and neither. */
  read: 2,
  /** fdatasync of data and checksums; names the incarnation of the writes it covers (rule F6). */
  flush: 3,
  /** Zero [offset, offset+length) without payload: holes for whole pages (rules S2, T1). May span the chunk. */
  zero: 4,
  /** Chunk server to chunk server: page records of a region: 12 bytes a page (stamp u32, CRC32C of content u32, state u8, 1 reserved, u16: where in this page the written bytes of the region end, 0: not here). Or region digests, when `incarnation` of the request is REGION_DIGESTS; a chunk server that does not know them answers with page records. */
  digest: 5,
  /** Chunk server to chunk server: whole pages with their stamps (table: stamp u32, CRC u32, state u8 + 3 a page). */
  pull: 6,
} as const
export type DataOp = (typeof DataOp)[keyof typeof DataOp]

export const DataFlag = {
  /** Read by the lease holder: a chunk server out of touch with the quorum refuses it (rule L2). */
  holder: 1,
  /** Answer to a read: every byte is zero, no payload, no table. */
  zeros: 2,
  /** Write and flush in one (FUA). */
  durable: 4,
  /**
   * Pull for a repair: also from a replica that is not in sync now, whatever its version; `version` of the
   * request is one under which it was in sync, without a crash since, or 0 for any (rule J7).
   */
  former: 8,
} as const

export const DATA_REQUEST_BYTES = 48
export const DATA_ANSWER_BYTES = 32
export const PAGE_RECORD_BYTES = 12
/** In the request for a digest: 16 bytes for each region instead, zeros where only page records tell. */
export const REGION_DIGESTS = 1
export const REGION_DIGEST_BYTES = 16

/** Mutable so that codecs and servers can reuse one object: no allocation per operation. */
export interface DataRequest {
  op: DataOp
  flags: number
  version: number
  chunk: number
  lease: number
  session: number
  incarnation: number
  offset: number
  length: number
}

export interface DataAnswer {
  op: DataOp
  flags: number
  /** '' = ok, else a WireCode. */
  code: string
  version: number
  incarnation: number
  /** Host crashes this store has seen (rule F6). */
  crashes: number
  offset: number
  length: number
}
