/** Sequential faces of a file: several blocks in flight, writes gathered into whole blocks. */
import { Readable, Writable } from 'node:stream'
import type { CairnError } from '../../base/errors.ts'
import type { File } from '../api.ts'
import { STREAM_BLOCK_BYTES, STREAM_BLOCKS_IN_FLIGHT } from '../session/limits.ts'

interface PendingBlock {
  data: Buffer | null
}

/** `end` is inclusive, as in node:fs; blocks arrive in order and are copies. */
export function readStreamOf(
  file: File,
  options: { readonly start?: number; readonly end?: number },
): Readable {
  let nextOffset = options.start ?? 0
  const behind = options.end === undefined ? Number.POSITIVE_INFINITY : options.end + 1
  const blocks: PendingBlock[] = []
  let wanted = false
  let atEnd = false

  const pushReady = (): void => {
    while (wanted) {
      const first = blocks[0]
      if (first === undefined) {
        if (atEnd) stream.push(null)
        return
      }
      if (first.data === null) return
      blocks.shift()
      wanted = stream.push(first.data)
    }
  }
  const fill = (): void => {
    while (!atEnd && blocks.length < STREAM_BLOCKS_IN_FLIGHT) {
      const length = Math.min(STREAM_BLOCK_BYTES, behind - nextOffset, file.attributes().size - nextOffset)
      if (length <= 0) {
        atEnd = true
        break
      }
      const block: PendingBlock = { data: null }
      blocks.push(block)
      file.read(nextOffset, length, (error, borrowedData) => {
        if (error !== null) return void stream.destroy(error)
        block.data = Buffer.from(borrowedData)
        if (borrowedData.length < length) atEnd = true
        pushReady()
        if (!atEnd) fill()
      })
      nextOffset += length
    }
    pushReady()
  }
  const stream = new Readable({
    highWaterMark: STREAM_BLOCK_BYTES,
    read(): void {
      wanted = true
      fill()
    },
  })
  return stream
}

export function writeStreamOf(file: File, options: { readonly start?: number }): Writable {
  let offset = options.start ?? 0
  let gathered: Buffer | null = null
  let gatheredBytes = 0
  let inFlight = 0
  let failure: CairnError | null = null
  let resume: (() => void) | null = null

  const wake = (): void => {
    const callback = resume
    resume = null
    callback?.()
  }
  const send = (data: Buffer): void => {
    inFlight++
    file.write(offset, data, (error) => {
      inFlight--
      failure ??= error
      wake()
    })
    offset += data.length
  }
  const sendGathered = (): void => {
    if (gathered === null || gatheredBytes === 0) return
    send(gathered.subarray(0, gatheredBytes))
    gathered = null
    gatheredBytes = 0
  }
  const take = (chunk: Buffer, at: number, callback: (error?: Error | null) => void): void => {
    let taken = at
    while (taken < chunk.length) {
      if (failure !== null) return callback(failure)
      if (inFlight >= STREAM_BLOCKS_IN_FLIGHT) {
        const from = taken
        resume = () => take(chunk, from, callback)
        return
      }
      // Blocks end where the file's own blocks end.
      const room = STREAM_BLOCK_BYTES - ((offset + gatheredBytes) % STREAM_BLOCK_BYTES)
      gathered ??= Buffer.allocUnsafe(STREAM_BLOCK_BYTES)
      const count = Math.min(room, chunk.length - taken)
      chunk.copy(gathered, gatheredBytes, taken, taken + count)
      gatheredBytes += count
      taken += count
      if (count === room) sendGathered()
    }
    callback(failure)
  }
  const drain = (callback: (error?: Error | null) => void): void => {
    if (inFlight === 0) return callback(failure)
    resume = () => drain(callback)
  }
  return new Writable({
    highWaterMark: STREAM_BLOCK_BYTES,
    write(chunk: Buffer | string, encoding, callback): void {
      take(typeof chunk === 'string' ? Buffer.from(chunk, encoding) : chunk, 0, callback)
    },
    final(callback): void {
      sendGathered()
      drain(callback)
    },
  })
}
