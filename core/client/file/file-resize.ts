/**
 * Truncate, zero, allocate. Rules T1 (the tail of a shrunk file is zeroed on all members before the size
 * may grow past it) and T2 (a chunk is unmapped only when nothing is in flight there).
 */
import type { CairnError } from '../../base/errors.ts'
import { CHUNK_SIZE_BYTES } from '../../base/units.ts'
import { CairnError as WireError } from '../../base/errors.ts'
import type { Attributes, ChunkLocation } from '../../wire/messages/common.ts'
import type { ChunkWriter } from '../chunk/chunk-writer.ts'
import { asCairnError, invalid, leaseLost } from '../session/errors.ts'
import { withinHold } from '../session/hold.ts'
import { publishFile } from './file-flush.ts'
import type { FileState } from './file-state.ts'
import {
  FILE_SIZE_BYTES_MAX,
  HOLD_BACKOFF_MS_MAX,
  INDEXES_PER_CALL_MAX,
  INTENTS_PER_CLEAR_MAX,
} from '../session/limits.ts'
import { Piece, type PieceOwner } from '../chunk/piece.ts'
import { WriteOperation } from './write-operation.ts'

/** Location under our lease; waits while the master reconfigures. */
export async function locateHeld(file: FileState, index: number): Promise<ChunkLocation | null> {
  for (let delayMs = 50; ; delayMs = Math.min(HOLD_BACKOFF_MS_MAX, delayMs * 2)) {
    const known = file.locationOf(index)
    if (known !== undefined) return known
    try {
      return await new Promise((resolve, reject) => {
        file.locations.locate(index, (error, location) => {
          if (error === null) resolve(location)
          else reject(error)
        })
      })
    } catch (error) {
      const reason = asCairnError(error)
      if (!reason.retryable && reason.code !== 'TRY_AGAIN') throw reason
      await new Promise<void>((resolve) => {
        file.engine.clock.setTimer(delayMs, resolve)
      })
    }
  }
}

/** A call under the lease held now. That it has ended is EIO for the caller, whoever notices first (rule E3). */
async function underLease<T>(file: FileState, call: (lease: number) => Promise<T>): Promise<T> {
  const lease = file.leaseNumber
  if (lease === 0) throw leaseLost(file.inode)
  try {
    const result = await call(lease)
    if (lease === file.leaseNumber) return result
  } catch (error) {
    const { code } = asCairnError(error)
    if (code !== 'NO_LEASE') throw error
    if (lease === file.leaseNumber) file.leaseEnded(code)
  }
  throw leaseLost(file.inode)
}

class Zeroing implements PieceOwner {
  readonly #done: (error: CairnError | null) => void

  constructor(done: (error: CairnError | null) => void) {
    this.#done = done
  }

  pieceEnded(_piece: Piece, error: CairnError | null): void {
    this.#done(error)
  }
}

function zeroInChunk(file: FileState, writer: ChunkWriter, begin: number, end: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const owner = new Zeroing((error) => (error === null ? resolve() : reject(error)))
    writer.submit(new Piece(owner, writer, file.engine.nextSequence(), begin, end, null))
  })
}

/** Rule T1. Runs alone (FileGate.exclusive), under the lease. */
export async function zeroTail(file: FileState): Promise<void> {
  await file.lease.ensure()
  const { zeroFrom, leaseNumber, inode } = file
  if (zeroFrom === undefined) return
  const index = Math.floor(zeroFrom / CHUNK_SIZE_BYTES)
  const begin = zeroFrom % CHUNK_SIZE_BYTES
  if (begin > 0 && (await locateHeld(file, index)) !== null) {
    if (file.leaseNumber !== leaseNumber) throw leaseLost(inode)
    const writer = file.writerOf(index)
    await zeroInChunk(file, writer, begin, CHUNK_SIZE_BYTES)
    // Durable before the mark goes: a power loss must not bring the old bytes back.
    await new Promise<void>((resolve, reject) => {
      writer.flusher.request((error) => (error === null ? resolve() : reject(error)))
    })
  }
  if (file.leaseNumber !== leaseNumber) throw leaseLost(inode)
  await underLease(file, (lease) => file.engine.session.mutate('lease.zeroed', { inode, lease, zeroFrom }))
  file.zeroFrom = undefined
}

export function truncateFile(file: FileState, size: number): Promise<Attributes> {
  if (!Number.isSafeInteger(size) || size < 0) return Promise.reject(invalid(`size ${size}`))
  if (size > FILE_SIZE_BYTES_MAX) return Promise.reject(new WireError('EFBIG', `size ${size}`))
  return withinHold(file.engine, resizeAlone(file, size))
}

function resizeAlone(file: FileState, size: number): Promise<Attributes> {
  return file.gate.exclusive(() => resize(file, size))
}

async function resize(file: FileState, size: number): Promise<Attributes> {
  if (file.dead) throw leaseLost(file.inode)
  await file.lease.ensure()
  if (file.zeroFrom !== undefined && size > file.zeroFrom) await zeroTail(file)
  // The quorum must know the size that it cuts, or it would not mark the tail.
  if (file.sizeChanged) await publishFile(file)
  const { inode } = file
  await file.intents.quiet()
  const answer = await underLease(file, (lease) =>
    file.engine.session.mutate('lease.truncate', { inode, lease, size }),
  )
  const kept = Math.ceil(size / CHUNK_SIZE_BYTES)
  file.forgetTimes()
  file.sizeChanged = false
  file.learned(answer.attributes)
  file.zeroFrom = answer.zeroFrom
  file.dropChunks((index) => index >= kept)
  return file.attributes
}

/** Zeros and unmaps [offset, offset+length); extends when it ends behind and `keepSize` is false. */
export async function zeroFile(
  file: FileState,
  offset: number,
  length: number,
  keepSize: boolean,
): Promise<void> {
  checkRange(offset, length)
  await withinHold(file.engine, zero(file, offset, length, keepSize))
}

async function zero(file: FileState, offset: number, length: number, keepSize: boolean): Promise<void> {
  const end = offset + length
  let lease: number
  do {
    // What exists, and where the file ends, is true only under the lease and while nothing else runs.
    const edges = await file.gate.exclusive(() => unmapWhole(file, offset, end))
    lease = file.leaseNumber
    for (const edge of edges) await zeroEdge(file, edge.begin, edge.end)
    // Somebody else may have written since: then what was found is not true any more.
  } while (lease !== file.leaseNumber)
  if (!keepSize && end > file.size) await resizeAlone(file, end)
}

interface Range {
  readonly begin: number
  readonly end: number
}

/** Unmaps the chunks that lie whole in the range; returns what is left to zero, each in one chunk. */
async function unmapWhole(file: FileState, begin: number, end: number): Promise<Range[]> {
  await file.lease.ensure()
  const zeroEnd = Math.min(end, file.size)
  if (zeroEnd <= begin) return []
  // What is recovered after our death is the highest byte that was written: none is left of the tail (rule F8).
  if (file.sizeChanged) await publishFile(file)
  const firstWhole = Math.ceil(begin / CHUNK_SIZE_BYTES)
  // The last chunk counts as whole when the range covers the file to its end.
  const behindWhole =
    end >= file.size ? Math.ceil(file.size / CHUNK_SIZE_BYTES) : Math.floor(end / CHUNK_SIZE_BYTES)
  if (behindWhole <= firstWhole) {
    const boundary = Math.min(zeroEnd, firstWhole * CHUNK_SIZE_BYTES)
    return [
      { begin, end: boundary },
      { begin: boundary, end: zeroEnd },
    ]
  }
  await unmap(file, firstWhole, behindWhole)
  return [
    { begin, end: firstWhole * CHUNK_SIZE_BYTES },
    { begin: behindWhole * CHUNK_SIZE_BYTES, end: zeroEnd },
  ]
}

/** Part of one chunk: nothing to do when the chunk does not exist. */
async function zeroEdge(file: FileState, begin: number, end: number): Promise<void> {
  if (end <= begin) return
  const index = Math.floor(begin / CHUNK_SIZE_BYTES)
  const writer = file.writers.get(index)
  if (writer === undefined || writer.phase === 'none') {
    // Only under the lease is "absent" true until we act on it.
    await file.gate.exclusive(() => file.lease.ensure())
    if ((await locateHeld(file, index)) === null && !file.writers.has(index)) return
  }
  await new Promise<void>((resolve, reject) => {
    file.gate.enter(
      new WriteOperation(file, begin, end - begin, null, (error) =>
        error === null ? resolve() : reject(error),
      ),
    )
  })
}

/** Rule T2: nothing is in flight, this runs alone. */
async function unmap(file: FileState, firstIndex: number, behindIndex: number): Promise<void> {
  await file.lease.ensure()
  const { inode } = file
  await file.intents.quiet()
  for (let at = firstIndex; at < behindIndex; at += INTENTS_PER_CLEAR_MAX) {
    const indexes: number[] = []
    for (let i = at; i < Math.min(behindIndex, at + INTENTS_PER_CLEAR_MAX); i++) indexes.push(i)
    await underLease(file, (lease) => file.engine.session.mutate('lease.unmap', { inode, lease, indexes }))
    file.dropChunks((index) => index >= at && index < at + indexes.length)
    file.wrote(0)
  }
}

/** fallocate(2) without flags: chunks exist and their space is reserved. */
export async function allocateFile(
  file: FileState,
  offset: number,
  length: number,
  keepSize: boolean,
): Promise<void> {
  checkRange(offset, length)
  await withinHold(file.engine, allocate(file, offset, length, keepSize))
}

async function allocate(file: FileState, offset: number, length: number, keepSize: boolean): Promise<void> {
  const last = Math.floor((offset + length - 1) / CHUNK_SIZE_BYTES)
  for (let at = Math.floor(offset / CHUNK_SIZE_BYTES); at <= last; at += INDEXES_PER_CALL_MAX) {
    const behind = Math.min(last + 1, at + INDEXES_PER_CALL_MAX)
    await file.gate.exclusive(() => reserve(file, at, behind, offset + length))
  }
  if (!keepSize && offset + length > file.size) await resizeAlone(file, offset + length)
}

/** Rule A2. The room is kept while the intents are: writing that begins soon finds it. */
async function reserve(file: FileState, first: number, behind: number, end: number): Promise<void> {
  await file.lease.ensure()
  const granted: Promise<void>[] = []
  for (let index = first; index < behind; index++) {
    const writer = file.writerOf(index)
    writer.wasUsed = true
    const endInChunk = Math.min(CHUNK_SIZE_BYTES, end - index * CHUNK_SIZE_BYTES)
    granted.push(
      new Promise((resolve, reject) =>
        writer.limit.reserve(endInChunk, (error) => (error === null ? resolve() : reject(error))),
      ),
    )
  }
  await Promise.all(granted)
}

function checkRange(offset: number, length: number): void {
  if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < 0 || length <= 0)
    throw invalid(`range ${offset}, ${length}`)
  if (offset + length > FILE_SIZE_BYTES_MAX) throw new WireError('EFBIG', `range ends at ${offset + length}`)
}
