/**
 * What a write of the workload contains: bytes that depend on the number of the write and on where in the
 * file they lie, so that any byte that is read tells which write it came from. Write 0 is "zeros".
 */

export const ZEROS = 0

function wordOf(write: number, index: number): number {
  let mixed = Math.imul(write, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca77)
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x2c1b3c6d)
  mixed = Math.imul(mixed ^ (mixed >>> 12), 0x297a2d39)
  return (mixed ^ (mixed >>> 15)) >>> 0
}

function byteOf(write: number, position: number): number {
  return (wordOf(write, Math.floor(position / 4)) >>> ((position % 4) * 8)) & 0xff
}

export function patternOf(write: number, position: number, length: number): Buffer {
  const data = Buffer.alloc(length)
  for (let at = 0; at < length; ) {
    const place = position + at
    if (place % 4 === 0 && at + 4 <= length) {
      data.writeUInt32LE(wordOf(write, place / 4), at)
      at += 4
    } else {
      data[at] = byteOf(write, place)
      at += 1
    }
  }
  return data
}

/** Does `data[from…to)`, which begins at `position` of the file, hold what `write` wrote there? */
export function matches(write: number, data: Buffer, from: number, to: number, position: number): boolean {
  if (write === ZEROS) {
    for (let at = from; at < to; at++) if (data[at] !== 0) return false
    return true
  }
  for (let at = from; at < to; ) {
    const place = position + at - from
    if (place % 4 === 0 && at + 4 <= to) {
      if (data.readUInt32LE(at) !== wordOf(write, place / 4)) return false
      at += 4
    } else {
      if (data[at] !== byteOf(write, place)) return false
      at += 1
    }
  }
  return true
}
