/**
 * Records of the replica log: 64 bytes each, docs/formats/chunk-store.md.
 *
 *    0 magic u32          16 address u64 (own)     40 lease u64
 *    4 type u8            24 chunk u64             48 open bitmap u64
 *    5 role u8            32 version u32           56 batch u32
 *    6 flags u16          36 generation u32        60 CRC32C u32 of 0..60
 *    8 sequence u64
 *
 * The state of an overlay is two records, one behind the other: *overlay* has the parent in the place of the
 * lease and the regions with leftovers in that of the open bitmap; *state* has the flag. A state with the flag and
 * without the record in front of it does not know its parent: that is damage, never a flat replica (rule S2).
 *
 * A file is: begin (chunk = marks so far), states, end (chunk = number of states), then appended records: *marks*, of
 * which the server counts how many there ever were (rule B3). A batch is what one sync covered; the field is the sequence (low 32 bits) of its first record. A record that does not read
 * back in the last batch was never acknowledged (torn tail), in front of it it is damage.
 */
import { crc32c } from '../../wire/checksum.ts'
import { readUInt64, writeUInt64 } from './chunk-layout.ts'
import { ReplicaState, type Role } from './replica-state.ts'

export const LOG_RECORD_BYTES = 64
const LOG_MAGIC = 0x4c4e5243 // 'CRNL'

export const LogRecord = { begin: 1, end: 2, state: 3, deleted: 4, overlay: 5 } as const
export type LogRecord = (typeof LogRecord)[keyof typeof LogRecord]

export interface LogPlace {
  sequence: number
  address: number
  generation: number
  batch: number
}

/** Of the largest state: that of an overlay. */
export const LOG_STATE_BYTES_MAX = 2 * LOG_RECORD_BYTES

/** What `encodeLogRecords` writes. */
export function recordCountOf(state: ReplicaState | null): number {
  return state?.isOverlay === true ? 2 : 1
}

/** Everything but the place, which is known when the record is written: `sealLogRecord`. */
export function encodeLogRecords(
  target: Buffer,
  at: number,
  type: LogRecord,
  chunk: number,
  state: ReplicaState | null,
): void {
  if (state?.isOverlay !== true) return encodeRecord(target, at, type, chunk, state)
  target.writeUInt32LE(LOG_MAGIC, at)
  target[at + 4] = LogRecord.overlay
  writeUInt64(target, chunk, at + 24)
  writeUInt64(target, state.parent, at + 40)
  target.writeUInt32LE(state.leftoversLow >>> 0, at + 48)
  target.writeUInt32LE(state.leftoversHigh >>> 0, at + 52)
  encodeRecord(target, at + LOG_RECORD_BYTES, type, chunk, state)
}

function encodeRecord(
  target: Buffer,
  at: number,
  type: LogRecord,
  chunk: number,
  state: ReplicaState | null,
): void {
  target.writeUInt32LE(LOG_MAGIC, at)
  target[at + 4] = type
  target[at + 5] = state?.role ?? 0
  target.writeUInt16LE(state?.flags ?? 0, at + 6)
  writeUInt64(target, chunk, at + 24)
  target.writeUInt32LE(state?.version ?? 0, at + 32)
  writeUInt64(target, state?.lease ?? 0, at + 40)
  target.writeUInt32LE((state?.openLow ?? 0) >>> 0, at + 48)
  target.writeUInt32LE((state?.openHigh ?? 0) >>> 0, at + 52)
}

export function sealLogRecord(target: Buffer, at: number, place: LogPlace): void {
  writeUInt64(target, place.sequence, at + 8)
  writeUInt64(target, place.address, at + 16)
  target.writeUInt32LE(place.generation, at + 36)
  target.writeUInt32LE(place.batch, at + 56)
  target.writeUInt32LE(crc32c(target.subarray(at, at + 60)), at + 60)
}

export interface DecodedRecord extends LogPlace {
  type: LogRecord
  chunk: number
  state: ReplicaState
}

/** Null: no valid record lies here. */
export function decodeLogRecord(source: Buffer, at: number, address: number): DecodedRecord | null {
  if (source.readUInt32LE(at) !== LOG_MAGIC) return null
  if (source.readUInt32LE(at + 60) !== crc32c(source.subarray(at, at + 60))) return null
  if (readUInt64(source, at + 16) !== address) return null
  const type = source[at + 4] ?? 0
  const role = source[at + 5] ?? 0
  if (type < LogRecord.begin || type > LogRecord.overlay || role > 2) return null
  const state = new ReplicaState()
  state.role = role as Role
  state.flags = source.readUInt16LE(at + 6)
  state.version = source.readUInt32LE(at + 32)
  state.lease = readUInt64(source, at + 40)
  state.openLow = source.readUInt32LE(at + 48) | 0
  state.openHigh = source.readUInt32LE(at + 52) | 0
  return {
    type: type as LogRecord,
    chunk: readUInt64(source, at + 24),
    sequence: readUInt64(source, at + 8),
    address,
    generation: source.readUInt32LE(at + 36),
    batch: source.readUInt32LE(at + 56),
    state,
  }
}

export interface LogReading {
  /** The snapshot is complete: this file may be the current one. */
  complete: boolean
  /** Records inside of what was acknowledged do not read back. */
  damaged: boolean
  generation: number
  lastSequence: number
  /** How many records were ever appended: snapshots do not count. */
  marks: number
  /** Where the next record goes. */
  end: number
  readonly states: Map<number, ReplicaState>
}

/**
 * Reads a whole log file. Synchronous and pure. A record that does not read back is a torn tail when it
 * lies in the last batch, else damage; `batch` and `sequence` of the last record tell where that begins.
 */
export function readLog(bytes: Buffer): LogReading {
  const reading: LogReading = {
    complete: false,
    damaged: false,
    generation: 0,
    lastSequence: 0,
    marks: 0,
    end: 0,
    states: new Map(),
  }
  const begin = bytes.length >= LOG_RECORD_BYTES ? decodeLogRecord(bytes, 0, 0) : null
  if (begin === null || begin.type !== LogRecord.begin) return reading
  reading.generation = begin.generation
  reading.lastSequence = begin.sequence
  reading.marks = begin.chunk
  let last = begin
  let firstBadAt = Number.POSITIVE_INFINITY
  for (let at = LOG_RECORD_BYTES; at + LOG_RECORD_BYTES <= bytes.length; at += LOG_RECORD_BYTES) {
    const record = decodeLogRecord(bytes, at, at)
    if (record !== null && follows(record, last)) last = record
    else if (firstBadAt === Number.POSITIVE_INFINITY) firstBadAt = at
  }
  const lastBatchAt = last.address - LOG_RECORD_BYTES * ((last.sequence - last.batch) % 0x100000000)
  reading.damaged = firstBadAt < lastBatchAt
  const end = reading.damaged
    ? last.address + LOG_RECORD_BYTES
    : Math.min(firstBadAt, last.address + LOG_RECORD_BYTES)
  let applied = begin
  for (let at = LOG_RECORD_BYTES; at < end; at += LOG_RECORD_BYTES) {
    const record = decodeLogRecord(bytes, at, at)
    if (record === null || !follows(record, applied)) continue
    applyRecord(reading, record, applied)
    applied = record
  }
  reading.end = end
  return reading
}

/** Behind the last record lies what a batch left that failed on a full disk: its numbers are lower. */
function follows(record: DecodedRecord, before: DecodedRecord): boolean {
  return record.generation === before.generation && record.sequence > before.sequence
}

function applyRecord(reading: LogReading, record: DecodedRecord, before: DecodedRecord): void {
  if (reading.complete) reading.marks += record.sequence - before.sequence
  reading.lastSequence = Math.max(reading.lastSequence, record.sequence)
  if (record.type === LogRecord.end) {
    // the end record counts the states of the snapshot
    reading.complete = record.chunk === reading.states.size
  } else if (record.type === LogRecord.deleted) {
    reading.states.delete(record.chunk)
  } else if (record.type === LogRecord.state) {
    if (record.state.isOverlay) addParent(record, before)
    reading.states.set(record.chunk, record.state)
  }
}

/** The record in front, when it is the other half. */
function addParent({ state, chunk, sequence }: DecodedRecord, before: DecodedRecord): void {
  if (before.type !== LogRecord.overlay || before.chunk !== chunk || before.sequence + 1 !== sequence) return
  // the fields of both have the same places
  state.parent = before.state.lease
  state.leftoversLow = before.state.openLow
  state.leftoversHigh = before.state.openHigh
}
