/**
 * A program that trusts nobody: writes random ranges of a file, fsyncs (unless told not to), reads back and
 * compares with what it knows, until its standard input ends. Exit status 1 on any error or difference. Prints how many rounds it has done after each.
 */
import { randomBytes, randomInt } from 'node:crypto'
import fs from 'node:fs'

const SIZE = 24 * 1024 * 1024
const LENGTH_MAX = 200_000
const WRITES_A_ROUND = 12

/** Without fsync nothing slows it down. */
const UNSYNCED_PAUSE_MS = 50

const file = process.argv[2]
const isUnsynced = process.argv[3] === 'unsynced'
if (file === undefined) throw new Error('usage: verifying-writer.ts FILE [unsynced]')
const descriptor = fs.openSync(file, 'w+')
const known = Buffer.alloc(SIZE)
fs.ftruncateSync(descriptor, SIZE)
let stopping = false
process.stdin.once('end', () => {
  stopping = true
})
process.stdin.resume()

function round(): void {
  for (let write = 0; write < WRITES_A_ROUND; write++) {
    const data = randomBytes(randomInt(1, LENGTH_MAX))
    const offset = randomInt(0, SIZE - data.length)
    const written = fs.writeSync(descriptor, data, 0, data.length, offset)
    if (written !== data.length) throw new Error(`short write: ${written} of ${data.length}`)
    data.copy(known, offset)
  }
  if (!isUnsynced) fs.fsyncSync(descriptor)
  for (let read = 0; read < WRITES_A_ROUND; read++) {
    const length = randomInt(1, LENGTH_MAX)
    const offset = randomInt(0, SIZE - length)
    const seen = Buffer.alloc(length)
    fs.readSync(descriptor, seen, 0, length, offset)
    const expected = known.subarray(offset, offset + length)
    if (!seen.equals(expected)) {
      const at = seen.findIndex((byte, index) => byte !== expected[index])
      throw new Error(`difference at ${offset + at}`)
    }
  }
}

let rounds = 0
function next(): void {
  if (stopping) {
    const seen = fs.readFileSync(file as string)
    if (!seen.equals(known)) throw new Error('the whole file differs at the end')
    process.exit(0)
  }
  round()
  rounds += 1
  process.stdout.write(`rounds ${rounds}\n`)
  if (isUnsynced) setTimeout(next, UNSYNCED_PAUSE_MS)
  else setImmediate(next)
}
next()
