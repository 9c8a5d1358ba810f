/**
 * Writes number after number, each after the one before was acknowledged, to a page of its own in turn, over
 * several chunks and without fsync, until its standard input ends. So what a file contained at some moment is told
 * from any mixture: `lastOf` says up to which number everything is there, and nothing behind it.
 */
import fs from 'node:fs'
import { pathToFileURL } from 'node:url'

const PAGE = 4096
const CHUNK = 64 * 1024 * 1024
const CHUNKS = 3
const SLOTS = 24

function offsetOf(slot: number): number {
  return (slot % CHUNKS) * CHUNK + slot * PAGE
}

/** Throws when the file is not what it was after some write. */
export function lastOf(file: string): number {
  const descriptor = fs.openSync(file, 'r')
  const numbers: number[] = []
  for (let slot = 0; slot < SLOTS; slot++) {
    const page = Buffer.alloc(PAGE)
    fs.readSync(descriptor, page, 0, PAGE, offsetOf(slot))
    const number = page.readUInt32LE(0)
    for (let at = 0; at < PAGE; at += 4)
      if (page.readUInt32LE(at) !== number) throw new Error(`${file}: page ${slot} is torn`)
    numbers.push(number)
  }
  fs.closeSync(descriptor)
  const last = Math.max(...numbers)
  for (const [slot, number] of numbers.entries()) {
    const expected = last - ((last - slot) % SLOTS)
    if (number !== (slot <= last ? expected : 0))
      throw new Error(`${file}: ${number} in page ${slot} instead of ${expected}, the last is ${last}`)
  }
  return last
}

function writeUntilStopped(file: string): void {
  const descriptor = fs.openSync(file, 'r+')
  let isStopping = false
  process.stdin.once('end', () => {
    isStopping = true
  })
  process.stdin.resume()
  let number = 0
  const next = (): void => {
    if (isStopping) process.exit(0)
    number += 1
    const page = Buffer.alloc(PAGE)
    for (let at = 0; at < PAGE; at += 4) page.writeUInt32LE(number, at)
    const written = fs.writeSync(descriptor, page, 0, PAGE, offsetOf(number % SLOTS))
    if (written !== PAGE) throw new Error(`short write: ${written}`)
    process.stdout.write(`${number}\n`)
    setImmediate(next)
  }
  next()
}

const [, program = '', file] = process.argv
if (import.meta.url === pathToFileURL(program).href && file !== undefined) writeUntilStopped(file)
