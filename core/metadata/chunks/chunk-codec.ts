/**
 * Rows of the chunk table as text (docs/formats/metadata.md). Nearly all are of one plain form, which is read from
 * the bytes without a text or an object for each.
 */
import { NUL, type PackedRows, Sign } from '../../platform/packed-rows.ts'
import type { ChunkMember, ChunkRow, PendingEpoch } from '../state/rows.ts'
import { jsonArray } from '../state/table.ts'
import { ChunkFlag, INLINE_MEMBER_COUNT, type PlainChunk } from './chunk-columns.ts'

/**
 * Row text, canonical: [inode, index, version, flags, intentLease, members, pending, former]; flags bit 0
 * writable, bit 1 dirtyDead; a member is [server, 0 = in sync | 1 = joining, since or attempt]; pending is
 * 0 or [version, reconcile 0|1, members]; former is [[server, version], ...]. Of a chunk that several hold or that
 * has overlays two more: holders, [[server, parent], ...], and behind them lossVersion of one that has it (from feature
 * level 3 on, when there are such chunks).
 */
export function encodeRow(row: ChunkRow): string {
  const pending =
    row.pending === null
      ? 0
      : [row.pending.version, row.pending.reconcile ? 1 : 0, encodeMembers(row.pending.members)]
  const { holders = [], overlays = [], lossVersion } = row
  const isShared = holders.length > 0 || overlays.length > 0 || lossVersion !== undefined
  return JSON.stringify([
    row.inode,
    row.index,
    row.version,
    (row.writable ? 1 : 0) | (row.dirtyDead ? 2 : 0),
    row.intentLease,
    encodeMembers(row.members),
    pending,
    row.former.map((entry) => [entry.server, entry.version]),
    ...(isShared ? [holders, overlays.map(({ server, parent }) => [server, parent])] : []),
    ...(lossVersion === undefined ? [] : [lossVersion]),
  ])
}

const plainRow: PlainChunk = {
  chunk: 0,
  inode: 0,
  index: 0,
  version: 0,
  flags: 0,
  memberCount: 0,
  members: [],
}
const tail = Buffer.from('],0,[]]')

/**
 * A row as nearly all are: at most three members, settled, not being written, without former replicas, held by one
 * file. Null for any other. What is returned is the same object every time.
 */
export function readPlainRow(rows: PackedRows): PlainChunk | null {
  const row = plainRow
  row.chunk = rows.integer()
  if (row.chunk <= 0 || !rows.takes(NUL) || !rows.takes(Sign.open)) return null
  row.inode = rows.integer()
  if (row.inode <= 0 || !rows.takes(Sign.comma)) return null
  row.index = rows.integer()
  if (!isUint32(row.index) || !rows.takes(Sign.comma)) return null
  row.version = rows.integer()
  if (!isUint32(row.version) || !rows.takes(Sign.comma)) return null
  row.flags = rows.integer()
  if (row.flags !== 0 && row.flags !== ChunkFlag.writable) return null
  if (!rows.takes(Sign.comma) || rows.integer() !== 0 || !rows.takes(Sign.comma) || !rows.takes(Sign.open))
    return null
  row.memberCount = 0
  do {
    if (row.memberCount === INLINE_MEMBER_COUNT || !readPlainMember(rows, row)) return null
  } while (rows.takes(Sign.comma))
  return rows.takesAll(tail) && rows.takes(NUL) ? row : null
}

function readPlainMember(rows: PackedRows, row: PlainChunk): boolean {
  if (!rows.takes(Sign.open)) return false
  const server = rows.integer()
  if (!isUint32(server) || !rows.takes(Sign.comma) || rows.integer() !== 0 || !rows.takes(Sign.comma))
    return false
  const since = rows.integer()
  if (!isUint32(since) || !rows.takes(Sign.close)) return false
  const at = 2 * row.memberCount
  row.members[at] = server
  row.members[at + 1] = since
  row.memberCount += 1
  return true
}

function isUint32(number: number): boolean {
  return number >= 0 && number < 0xffff_ffff
}

function encodeMembers(members: readonly ChunkMember[]): number[][] {
  return members.map((member) =>
    member.role === 'joining' ? [member.server, 1, member.attempt] : [member.server, 0, member.since],
  )
}

export function decodeRow(chunk: number, value: unknown): ChunkRow {
  const [inode, index, version, flags, intentLease, members, pending, former, ...shared] = jsonArray(value, 8)
  const flagBits = integer(flags)
  return {
    chunk,
    inode: integer(inode),
    index: integer(index),
    version: integer(version),
    writable: (flagBits & 1) !== 0,
    dirtyDead: (flagBits & 2) !== 0,
    intentLease: integer(intentLease),
    members: decodeMembers(members),
    pending: pending === 0 ? null : decodePending(pending),
    former: jsonArray(former, 0).map((entry) => {
      const [server, formerVersion] = jsonArray(entry, 2)
      return { server: integer(server), version: integer(formerVersion) }
    }),
    ...(shared.length === 0 ? {} : decodeShared(shared)),
  }
}

function decodeShared(value: unknown): Pick<ChunkRow, 'holders' | 'overlays' | 'lossVersion'> {
  const [holders, overlays, lossVersion] = jsonArray(value, 2)
  return {
    holders: jsonArray(holders, 0).map(integer),
    overlays: jsonArray(overlays, 0).map((entry) => {
      const [server, parent] = jsonArray(entry, 2)
      return { server: integer(server), parent: integer(parent) }
    }),
    ...(lossVersion === undefined ? {} : { lossVersion: integer(lossVersion) }),
  }
}

function decodePending(value: unknown): PendingEpoch {
  const [version, reconcile, members] = jsonArray(value, 3)
  return { version: integer(version), reconcile: reconcile === 1, members: decodeMembers(members) }
}

function decodeMembers(value: unknown): ChunkMember[] {
  return jsonArray(value, 1).map((entry) => {
    const [server, joining, mark] = jsonArray(entry, 3)
    return joining === 1
      ? { server: integer(server), role: 'joining', since: 0, attempt: integer(mark) }
      : { server: integer(server), role: 'in-sync', since: integer(mark), attempt: 0 }
  })
}

function integer(value: unknown): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) throw new Error('no integer')
  return value
}
