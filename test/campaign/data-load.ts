/**
 * Clients that write random ranges of files, fsync and read back, and compare every byte with what they know.
 * Now and then a file is closed and opened again, and another one is made in its place: that takes the master
 * for names, leases, grants of chunks and sizes, and the chunk servers for the rest.
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { Client, File } from '../../core/client/api.ts'
import type { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import type { Crew } from './crew.ts'
import type { Pulse } from './pulse.ts'

const ROOT = 1
const FILE_SIZE_BYTES = 4 * 1024 * 1024
const LENGTH_BYTES_MAX = 96 * 1024
const FILES_PER_CLIENT = 3
const THINK_MS_MAX = 20
const owner = { uid: 0, gid: 0 }

interface KnownFile {
  readonly name: string
  contents: Buffer
  open: File | null
}

export class DataLoad {
  readonly #pulse: Pulse
  readonly #crew: Crew
  readonly #clients: readonly Client[]
  readonly #files: KnownFile[][]
  #isStarted = false
  #isOver = false
  bytes = 0

  constructor(pulse: Pulse, crew: Crew, clients: readonly Client[]) {
    this.#pulse = pulse
    this.#crew = crew
    this.#clients = clients
    this.#files = clients.map((_, number) =>
      Array.from({ length: FILES_PER_CLIENT }, (__, file) => ({
        name: `data-${number + 1}-${file + 1}`,
        contents: Buffer.alloc(0),
        open: null,
      })),
    )
  }

  /** The first one starts it; the others change nothing. */
  newRound(_name: string, random: SeededRandom): Promise<void> {
    if (!this.#isStarted) this.#start(random)
    return Promise.resolve()
  }

  #start(random: SeededRandom): void {
    this.#isStarted = true
    for (const [number, client] of this.#clients.entries()) {
      const name = `data${number + 1}`
      this.#crew.add(name, this.#work(name, client, this.#files[number] ?? [], random.fork(name)))
    }
  }

  /** Nobody begins anything any more; what was written is flushed. */
  stop(): void {
    this.#isOver = true
  }

  async #work(name: string, client: Client, files: KnownFile[], random: SeededRandom): Promise<void> {
    while (!this.#isOver) {
      const file = files[random.below(files.length)]
      if (file === undefined) return
      await this.#operate(client, file, random)
      this.#pulse.beat(name)
      await pause(random.below(THINK_MS_MAX))
    }
    for (const file of files) await close(file)
  }

  async #operate(client: Client, file: KnownFile, random: SeededRandom): Promise<void> {
    file.open ??= await openOrMake(client, file)
    const { open } = file
    const choice = random.below(100)
    if (choice < 45) await this.#write(open, file, random)
    else if (choice < 80) await this.#compare(open, file, random)
    else if (choice < 94) await flush(open)
    else if (choice < 98) await close(file)
    else {
      await close(file)
      await client.fileSystem.unlink(ROOT, file.name)
      file.contents = Buffer.alloc(0)
    }
  }

  async #write(open: File, file: KnownFile, random: SeededRandom): Promise<void> {
    const data = random.bytes(1 + random.below(LENGTH_BYTES_MAX))
    const offset = random.below(FILE_SIZE_BYTES - data.length)
    await new Promise<void>((resolve, reject) => {
      open.write(offset, data, (error) => (error === null ? resolve() : reject(error)))
    })
    if (offset + data.length > file.contents.length)
      file.contents = Buffer.concat([
        file.contents,
        Buffer.alloc(offset + data.length - file.contents.length),
      ])
    data.copy(file.contents, offset)
    this.bytes += data.length
  }

  async #compare(open: File, file: KnownFile, random: SeededRandom): Promise<void> {
    const offset = random.below(FILE_SIZE_BYTES)
    const length = 1 + random.below(LENGTH_BYTES_MAX)
    compare(file, offset, length, await read(open, offset, length))
    this.bytes += length
  }

  /** Every byte of every file, with a client that knows nothing. Rejects at the first difference. */
  async lookAtEverything(client: Client): Promise<void> {
    for (const file of this.#files.flat()) {
      if (file.contents.length === 0) continue
      const { inode } = await client.fileSystem.lookup(ROOT, file.name)
      const open = await client.fileSystem.open(inode)
      if (open.attributes().size !== file.contents.length)
        throw new Error(`${file.name}: ${open.attributes().size} bytes instead of ${file.contents.length}`)
      for (let offset = 0; offset < file.contents.length; offset += LENGTH_BYTES_MAX)
        compare(file, offset, LENGTH_BYTES_MAX, await read(open, offset, LENGTH_BYTES_MAX))
      open.close()
    }
  }
}

/** A file that nothing was written to is made: it may be there already. */
async function openOrMake(client: Client, { name, contents }: KnownFile): Promise<File> {
  const { fileSystem } = client
  if (contents.length === 0) return (await fileSystem.create(ROOT, name, 0o644, owner, false)).file
  return await fileSystem.open((await fileSystem.lookup(ROOT, name)).inode)
}

function flush(open: File): Promise<void> {
  return new Promise((resolve, reject) => {
    open.flush((error) => (error === null ? resolve() : reject(error)))
  })
}

async function close(file: KnownFile): Promise<void> {
  const { open } = file
  if (open === null) return
  await flush(open)
  open.close()
  file.open = null
}

function read(open: File, offset: number, length: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    open.read(offset, length, (error, borrowedData) => {
      if (error === null) resolve(Buffer.from(borrowedData))
      else reject(error)
    })
  })
}

function compare({ name, contents }: KnownFile, offset: number, length: number, seen: Buffer): void {
  const expected = contents.subarray(offset, offset + length)
  if (seen.equals(expected)) return
  const at = expected.findIndex((byte, index) => byte !== seen[index])
  throw new Error(
    `${name}: ${seen.length} bytes at ${offset} instead of ${expected.length}, first difference at ${offset + at}`,
  )
}
