/** Snapshots as requests see them: pause the writer, then a command, then wait until the chunk list is complete. */
import { mark } from '../../base/coverage.ts'
import type { snapshotMethods } from '../../wire/messages/snapshots.ts'
import type { ParamsOf, ResultOf } from '../../wire/messages/method.ts'
import { WAIT_MS_MAX } from '../control/replication/chunk-waiters.ts'
import type { Master } from '../control/servers/master.ts'
import { wireError } from '../errors.ts'
import { valueOf } from '../state/result.ts'
import type { SnapshotRow } from '../state/rows.ts'
import type { ListCopier } from './list-copier.ts'
import type { Pauses } from './pauses.ts'

type Methods = typeof snapshotMethods
type Params<N extends keyof Methods> = ParamsOf<Methods, N>
type Result<N extends keyof Methods> = ResultOf<Methods, N>

const CHUNKS_PER_TURN_MAX = 16_384

export interface SnapshotParts {
  readonly master: Master
  readonly pauses: Pauses
  readonly copier: ListCopier
  /** Takes the lease back from whoever has it; EBUSY when a block export does (rule T2). */
  readonly recall: (inode: number) => Promise<void>
  /** A chunk server that does not know overlays, or undefined. */
  readonly outdatedServer: () => number | undefined
}

export class SnapshotService {
  readonly #parts: SnapshotParts

  constructor(parts: SnapshotParts) {
    this.#parts = parts
  }

  async create(session: number, params: Params<'snapshot.create'>): Promise<Result<'snapshot.create'>> {
    const { master, pauses } = this.#parts
    this.#checkServers()
    const propose = () => master.log.propose({ type: 'snapshot.create', session, ...params })
    const { snapshot } = await pauses.whilePaused(params.inode, propose)
    await this.#complete(snapshot)
    // It may have been deleted since, and its number tells that.
    return { snapshot }
  }

  async delete(session: number, params: Params<'snapshot.delete'>): Promise<Result<'snapshot.delete'>> {
    const { log } = this.#parts.master
    return valueOf(await log.propose({ type: 'snapshot.delete', session, ...params }))
  }

  async clone(session: number, params: Params<'snapshot.clone'>): Promise<Result<'snapshot.clone'>> {
    const { master, pauses } = this.#parts
    this.#checkServers()
    const { source, parent, name } = params
    const propose = () => master.log.propose({ type: 'snapshot.clone', session, ...params })
    const isSnapshot = master.state.snapshots.has(source)
    const { inode } = isSnapshot ? valueOf(await propose()) : await pauses.whilePaused(source, propose)
    await this.#complete(inode)
    if (master.state.inodes.get(inode)?.links !== 0) return { inode }
    const taken = master.state.entries.entry(parent, name)
    if (taken !== undefined) throw wireError('EEXIST', 'the name was taken meanwhile')
    throw wireError('QUOTA', 'a chunk is shared by too many files and snapshots, or the directory has gone')
  }

  async rollback(session: number, params: Params<'snapshot.rollback'>): Promise<Result<'snapshot.rollback'>> {
    const { master, pauses, recall } = this.#parts
    this.#checkServers()
    const row = this.#row(params.snapshot)
    const propose = () => master.log.propose({ type: 'snapshot.rollback', session, ...params })
    const { inode } = await pauses.whilePaused(row.source, propose, () => {
      if (master.state.leaseByInode.has(row.source)) mark('a rollback recalls the lease of a writer')
      return recall(row.source)
    })
    await this.#complete(inode)
    return { inode }
  }

  list({ source, after, limit }: Params<'snapshot.list'>): Result<'snapshot.list'> {
    const { state } = this.#parts.master
    const all = source === 0 ? state.snapshots.keys() : (state.snapshotsBySource.get(source) ?? [])
    const ids = [...all].filter((id) => id > after).toSorted((a, b) => a - b)
    const rows = ids.slice(0, limit).map((id) => this.#row(id))
    return { snapshots: rows.map((row) => this.#shown(row)), end: ids.length <= limit }
  }

  async info({ snapshot }: Params<'snapshot.info'>): Promise<Result<'snapshot.info'>> {
    const { master } = this.#parts
    const row = this.#row(snapshot)
    const chunks = master.state.inodes.get(snapshot)?.chunks.ids() ?? []
    let ownChunks = 0
    for (const [at, chunk] of chunks.entries()) {
      if (master.state.chunks.sharing.holders(chunk).length === 0) ownChunks += 1
      if (at % CHUNKS_PER_TURN_MAX === CHUNKS_PER_TURN_MAX - 1)
        await new Promise<void>((resolve) => master.defer(resolve))
    }
    return { snapshot: this.#shown(row), ownChunks, sharedChunks: chunks.length - ownChunks }
  }

  #row(snapshot: number): SnapshotRow {
    const row = this.#parts.master.state.snapshots.get(snapshot)
    if (row === undefined) throw wireError('NOT_FOUND', `there is no snapshot ${snapshot}`)
    return row
  }

  #shown({ snapshot, source, name, path, seconds, nanoseconds }: SnapshotRow) {
    const { state } = this.#parts.master
    const inode = state.inodes.get(snapshot)
    return {
      ...{ snapshot, source, name, path },
      sourceExists: state.inodes.has(source),
      timeMs: seconds * 1000 + Math.floor(nanoseconds / 1e6),
      size: inode?.size ?? 0,
      chunks: inode?.chunks.size ?? 0,
      ready: !state.isFrozen(snapshot),
    }
  }

  async #complete(target: number): Promise<void> {
    if (!(await this.#parts.copier.ended(target, WAIT_MS_MAX)))
      throw wireError('TRY_AGAIN', 'a long chunk list is being taken over')
  }

  /** It would take an overlay for an empty replica. */
  #checkServers(): void {
    const server = this.#parts.outdatedServer()
    if (server !== undefined)
      throw wireError('FEATURE_LEVEL', `CS#${server} runs a version that has no snapshots: update it`)
  }
}
