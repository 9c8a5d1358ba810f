/**
 * A disk image under a random writer, a process of its own: a few pages of each of very many chunks are written in
 * rounds, each round with its number in every word, and flushed. It prints every round that was flushed and goes on
 * until it is killed. `pagesOf` and `roundOf` tell whoever takes over what was written where.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { pathToFileURL } from 'node:url'
import { CHUNK_SIZE_BYTES, PAGE_SIZE_BYTES, PAGES_PER_CHUNK } from '../../../core/base/units.ts'
import { Prng } from '../../../core/base/prng.ts'
import type { Client, IoCallback, Operation, ReadCallback } from '../../../core/client/api.ts'
import { connect } from '../../../core/client/connect.ts'

const PAGES_WRITTEN_PER_CHUNK = 4
const WRITES_AT_ONCE = 64
const OUTPUT_TAIL = 100

export interface RandomWriterOptions {
  readonly metadataServers: readonly string[]
  readonly keyFile: string
  readonly path: string
  readonly chunks: number
  /** As a block device: its lease is pinned (rule L5). */
  readonly isPinned: boolean
}

/** What an image and a block device have in common. */
export interface Image {
  read(offset: number, length: number, callback: ReadCallback): Operation
  write(offset: number, borrowedData: Buffer, callback: IoCallback): Operation
  flush(callback: IoCallback): Operation
  close(): Promise<void> | void
}

export interface RandomWriter {
  readonly child: ChildProcess
  /** Flushed. */
  readonly rounds: number
}

export function startRandomWriter(options: RandomWriterOptions): RandomWriter {
  const program = [import.meta.filename, JSON.stringify(options)]
  const child = spawn(process.execPath, program, { stdio: ['ignore', 'pipe', 'inherit'] })
  let output = ''
  child.stdout.on('data', (data) => {
    output = (output + String(data)).slice(-OUTPUT_TAIL)
  })
  return {
    child,
    get rounds() {
      return Number([...output.matchAll(/rounds (\d+)\n/g)].at(-1)?.[1] ?? 0)
    },
  }
}

export async function openImage(
  client: Client,
  { path, isPinned }: Pick<RandomWriterOptions, 'path' | 'isPinned'>,
): Promise<Image> {
  if (isPinned) return await client.openBlockDevice(path)
  return await client.fileSystem.open((await client.fileSystem.resolve(path)).inode)
}

/** Positions in the image, the same every time; those of a chunk stand together. */
export function pagesOf(chunks: number): number[] {
  const random = new Prng(chunks)
  return Array.from({ length: chunks * PAGES_WRITTEN_PER_CHUNK }, (_, number) => {
    const chunk = Math.floor(number / PAGES_WRITTEN_PER_CHUNK)
    return chunk * CHUNK_SIZE_BYTES + random.below(PAGES_PER_CHUNK) * PAGE_SIZE_BYTES
  })
}

/** Throws when the page is a mixture. */
export function roundOf(page: Buffer): number {
  const round = page.readUInt32LE(0)
  for (let at = 0; at < page.length; at += 4)
    if (page.readUInt32LE(at) !== round) throw new Error(`a page of round ${round} is torn at ${at}`)
  return round
}

function shuffled(positions: readonly number[], random: Prng): number[] {
  const order = [...positions]
  for (let left = order.length - 1; left > 0; left--) {
    const other = random.below(left + 1)
    const moved = order[left] ?? 0
    order[left] = order[other] ?? 0
    order[other] = moved
  }
  return order
}

export function writePage(image: Image, position: number, round: number): Promise<void> {
  const page = Buffer.alloc(PAGE_SIZE_BYTES)
  for (let at = 0; at < page.length; at += 4) page.writeUInt32LE(round, at)
  return new Promise((resolve, reject) => {
    image.write(position, page, (error) => (error === null ? resolve() : reject(error)))
  })
}

export function flush(image: Image): Promise<void> {
  return new Promise((resolve, reject) => {
    image.flush((error) => (error === null ? resolve() : reject(error)))
  })
}

async function writeForEver(options: RandomWriterOptions): Promise<never> {
  const { metadataServers, keyFile, chunks } = options
  const client = await connect(
    { cluster: 'demo', metadataServers, kind: 'test', name: 'random writer' },
    { keyFile },
  )
  const image = await openImage(client, options)
  const positions = pagesOf(chunks)
  const random = new Prng(1)
  for (let round = 1; ; round++) {
    const order = shuffled(positions, random)
    const writeSome = async (): Promise<void> => {
      for (;;) {
        const position = order.pop()
        if (position === undefined) return
        await writePage(image, position, round)
      }
    }
    await Promise.all(Array.from({ length: WRITES_AT_ONCE }, writeSome))
    await flush(image)
    process.stdout.write(`rounds ${round}\n`)
  }
}

const [, program = '', options] = process.argv
if (import.meta.url === pathToFileURL(program).href && options !== undefined)
  await writeForEver(JSON.parse(options) as RandomWriterOptions)
