/**
 * Puts a large state into the repository of a metadata server: files of some chunks with three replicas each,
 * made by the commands that clients and the master make, applied by the real state machine, stored by the real
 * store. Only the log's entries are left out, but the last.
 */
import { createStateMachine } from '../core/metadata/state/machine.ts'
import type { Command } from '../core/metadata/state/commands.ts'
import type { RowChange } from '../core/platform/store.ts'
import { encodeLogEntry } from '../core/metadata/log/codec.ts'
import { recover } from '../core/metadata/quorum/recovery.ts'
import { SqliteStore } from '../core/platform/node/sqlite-store.ts'
import { CHUNK_SIZE_BYTES } from '../core/base/units.ts'

const FILES_PER_DIRECTORY = 1_000
const SERVER_COUNT = 3
/** A lease has at most 1,024 intents. */
const CHUNKS_AT_ONCE = 1_000
const ROWS_PER_COMMIT = 20_000
const RESERVE_COUNT = 60_000
const TERM = 1

/** Of a chunk server of the state: how it registers. */
export function storeUuidOf(number: number): string {
  return String(number).repeat(32)
}

/** Files of one kind, in directories of their own: `kind` number / 1,000, and in it file- number % 1,000. */
export interface StateSize {
  readonly kind?: string
  readonly files: number
  readonly chunksPerFile: number
}

class StateMaker {
  readonly #store: SqliteStore
  readonly #machine = createStateMachine()
  #sequence = 0
  #session = 0
  readonly #servers: number[] = []
  #reserved: number[] = []
  #rowsWaiting = 0
  #changes: RowChange[] = []

  private constructor(store: SqliteStore) {
    this.#store = store
  }

  static async make(database: string, sizes: readonly StateSize[]): Promise<void> {
    const maker = new StateMaker(await SqliteStore.open(database))
    await recover(maker.#store, maker.#machine as unknown as Parameters<typeof recover>[1])
    await maker.#make(sizes)
    await maker.#store.close()
  }

  async #make(sizes: readonly StateSize[]): Promise<void> {
    const opened = this.#apply({
      type: 'session.open',
      name: 'bench',
      host: 'bench',
      kind: 'bench',
      secret: 's',
    })
    this.#session = (opened as { session: number }).session
    for (let number = 1; number <= SERVER_COUNT; number++)
      this.#servers.push((this.#apply(registration(number)) as { server: number }).server)
    for (const size of sizes) await this.#makeFiles(size)
    this.#apply({ type: 'session.expire', session: this.#session, clean: true })
    await this.#commit(true)
  }

  async #makeFiles({ kind = 'directory', files, chunksPerFile }: StateSize): Promise<void> {
    let parent = 0
    for (let file = 0; file < files; file++) {
      if (file % FILES_PER_DIRECTORY === 0) parent = this.#directory(`${kind}-${file / FILES_PER_DIRECTORY}`)
      const made = this.#file(parent, `file-${file % FILES_PER_DIRECTORY}.dat`)
      for (let from = 0; from < chunksPerFile; from += CHUNKS_AT_ONCE) {
        this.#chunks(made, from, Math.min(chunksPerFile, from + CHUNKS_AT_ONCE))
        if (this.#rowsWaiting > ROWS_PER_COMMIT) await this.#commit()
      }
      this.#request({ type: 'lease.release', ...made, size: chunksPerFile * CHUNK_SIZE_BYTES })
      this.#rowsWaiting += 4
    }
  }

  #directory(name: string): number {
    const owner = { mode: 0o755, uid: 1000, gid: 1000, device: 0 }
    const made = this.#request({ type: 'fs.mknod', fileType: 'directory', parent: 1, name, ...owner })
    return (made as { attributes: { inode: number } }).attributes.inode
  }

  #file(parent: number, name: string): { inode: number; lease: number } {
    const owner = { mode: 0o644, uid: 1000, gid: 1000 }
    const made = this.#request({
      ...{ type: 'fs.create', parent, name, exclusive: true, lease: true },
      ...owner,
    }) as { attributes: { inode: number }; lease: number }
    return { inode: made.attributes.inode, lease: made.lease }
  }

  #chunks(file: { inode: number; lease: number }, from: number, end: number): void {
    const chunks = Array.from({ length: end - from }, (_, count) => ({
      ...{ chunk: this.#chunkId(), index: from + count },
      members: this.#servers,
    }))
    this.#apply({ type: 'chunk.create', ...file, chunks })
    this.#apply({ type: 'intent.clear', ...file, chunks: chunks.map(({ chunk }) => chunk) })
    this.#rowsWaiting += chunks.length
  }

  #chunkId(): number {
    if (this.#reserved.length === 0) {
      const { from } = this.#apply({ type: 'chunk.reserve', count: RESERVE_COUNT }) as { from: number }
      this.#reserved = Array.from({ length: RESERVE_COUNT }, (_, number) => from + number).toReversed()
    }
    return this.#reserved.pop() ?? 0
  }

  #request(command: object): unknown {
    this.#sequence += 1
    const mutation = { sequence: this.#sequence, acknowledgedBelow: this.#sequence }
    return this.#apply({ ...command, session: this.#session, mutation } as Command)
  }

  #apply(command: Command): unknown {
    const index = this.#machine.appliedIndex + 1
    const result = this.#machine.apply(
      { command, wallSeconds: 1_800_000_000 + index, wallNanoseconds: 0 },
      index,
    )
    if ('error' in result) throw new Error(`${command.type}: ${result.error} ${result.message}`)
    return result.ok
  }

  async #commit(isLast = false): Promise<void> {
    this.#rowsWaiting = 0
    const tick: Command = { type: 'tick', elapsedMs: 1 }
    this.#apply(tick)
    const index = this.#machine.appliedIndex
    this.#changes = this.#machine.state.collectChanges()
    const data = encodeLogEntry({ command: tick, wallSeconds: 1_800_000_000, wallNanoseconds: 0 }, index)
    await this.#store.commit({
      rows: this.#changes,
      appliedIndex: index,
      entries: isLast ? [{ index, term: TERM, data }] : [],
      ...(isLast ? { trimThrough: index - 1 } : {}),
    })
  }
}

function registration(server: number): Command {
  return {
    ...{ type: 'server.register', server: 0, storeUuid: storeUuidOf(server), registration: 0 },
    ...{
      incarnation: 1,
      crashes: 0,
      hostId: `h${server}`,
      hostName: `host-${server}`,
      location: '',
      tier: 0,
    },
    ...{ host: '127.0.0.1', port: 9, totalBytes: 2 ** 50, checksums: true },
  }
}

if (import.meta.main) {
  const [database = '', sizes = ''] = process.argv.slice(2)
  await StateMaker.make(database, JSON.parse(sizes) as StateSize[])
}
