/**
 * For tests: a state machine of the namespace alone, with a session and short forms of its commands. The
 * chunk side is a plain list of what was dropped.
 */
import type { RowChange } from '../../platform/store.ts'
import type { FileType, Mutation } from '../../wire/messages/common.ts'
import { type Handler, StateMachine } from '../state/apply.ts'
import type { Command, RequestCommand } from '../state/commands.ts'
import type { CommandResult } from '../state/result.ts'
import type { InodeRow } from '../state/rows.ts'
import { type ChunkTracked, MetadataState } from '../state/state.ts'
import type { ChunkActions } from './chunk-actions.ts'
import { namespaceHandlers } from './handlers.ts'

/** Rows: chunk -> [inode, index]. */
class PlainChunks implements ChunkTracked {
  readonly name = 'chunks'
  readonly mapped = new Map<number, [number, number]>()
  get size(): number {
    return this.mapped.size
  }
  loadRow(key: string, value: string): void {
    this.mapped.set(Number(key), JSON.parse(value) as [number, number])
  }
  get changedCount(): number {
    return 0
  }
  collectChanges(into: RowChange[]): void {
    for (const [key, value] of this.rows()) into.push({ table: this.name, key, value })
  }
  *rows(): Iterable<readonly [string, string]> {
    for (const [chunk, place] of this.mapped) yield [String(chunk), JSON.stringify(place)]
  }
  scanMapped(
    _from: number,
    _count: number,
    visit: (chunk: number, inode: number, index: number) => void,
  ): number {
    for (const [chunk, [inode, index]] of this.mapped) visit(chunk, inode, index)
    return -1
  }
}

type WithoutMutation<C> = C extends { mutation: Mutation } ? Omit<C, 'mutation' | 'session'> : never
export type ShortCommand = WithoutMutation<RequestCommand>

export class NamespaceBench {
  readonly chunks = new PlainChunks()
  readonly state = new MetadataState(this.chunks)
  readonly dropped: number[] = []
  readonly actions: ChunkActions = {
    dropChunks: (_context, _inode, chunks) => {
      for (const chunk of chunks) this.chunks.mapped.delete(chunk)
      this.dropped.push(...chunks)
    },
    grantLease: ({ state, index }, inode, session) => {
      state.leases.set(index, { lease: index, inode, session, pinned: false })
      return index
    },
  }
  readonly machine: StateMachine<PlainChunks>
  session = 1
  wallSeconds = 1_000
  private sequence = 1_000_000

  /** `empty`: no session yet. `withSessions`: session.open makes them. */
  constructor(options: { readonly empty?: boolean; readonly withSessions?: boolean } = {}) {
    this.machine = new StateMachine(this.state, {
      ...namespaceHandlers(this.actions),
      ...(options.withSessions === true ? { 'session.open': openSession } : {}),
    })
    if (options.empty === true) return
    this.state.sessions.set(1, {
      session: 1,
      secret: 's',
      name: 'n',
      host: 'h',
      kind: 'k',
      openedAtTickMs: 0,
    })
  }

  /** Each command is a second later than the one before. */
  apply(command: Command): CommandResult {
    this.wallSeconds += 1
    const entry = { command, wallSeconds: this.wallSeconds, wallNanoseconds: 123_456_789 }
    return this.machine.apply(entry, this.machine.appliedIndex + 1)
  }

  /** The command as a new mutation of the session. */
  run(command: ShortCommand): CommandResult {
    this.sequence += 1
    const mutation = { sequence: this.sequence, acknowledgedBelow: this.sequence }
    return this.apply({ ...command, session: this.session, mutation } as Command)
  }

  create(name: string, parent = 1, exclusive = true): CommandResult {
    const owner = { uid: 10, gid: 20, mode: 0o644 }
    return this.run({ type: 'fs.create', parent, name, ...owner, exclusive, lease: false })
  }

  node(name: string, parent = 1, fileType: FileType = 'directory', mode = 0o755): CommandResult {
    return this.run({ type: 'fs.mknod', fileType, parent, name, mode, uid: 10, gid: 20, device: 0x801 })
  }

  link(inode: number, name: string, parent = 1): CommandResult {
    return this.run({ type: 'fs.link', inode, parent, name })
  }

  unlink(name: string, parent = 1): CommandResult {
    return this.run({ type: 'fs.unlink', parent, name })
  }

  rmdir(name: string, parent = 1): CommandResult {
    return this.run({ type: 'fs.rmdir', parent, name })
  }

  rename(
    name: string,
    newName: string,
    places: { parent?: number; newParent?: number; mode?: 'replace' | 'no-replace' | 'exchange' } = {},
  ): CommandResult {
    const { parent = 1, newParent = 1, mode = 'replace' } = places
    return this.run({ type: 'fs.rename', parent, name, newParent, newName, mode })
  }

  /** The inode that a path leads to; throws when it leads nowhere. */
  at(path: string): InodeRow {
    let row = this.row(1)
    for (const name of path.split('/').filter((part) => part !== '')) {
      const entry = this.state.entries.entry(row.inode, name)
      if (entry === undefined) throw new Error(`nothing at ${path}`)
      row = this.row(entry.inode)
    }
    return row
  }

  row(inode: number): InodeRow {
    const row = this.state.inodes.get(inode)
    if (row === undefined) throw new Error(`no inode ${inode}`)
    return row
  }

  /** What a restart sees: the same rows, in another order. Takes the changes collected so far. */
  reloaded(): NamespaceBench {
    const copy = new NamespaceBench({ empty: true })
    for (const { table, key, value } of this.state.collectChanges().toReversed()) {
      if (value !== null) copy.state.loadRow(table, key, value)
    }
    copy.state.finishLoad()
    copy.machine.startFrom(this.machine.appliedIndex)
    copy.session = this.session
    copy.sequence = this.sequence
    return copy
  }

  /** Gives a file chunks at these indexes. */
  mapChunks(inode: number, indexes: readonly number[]): void {
    const row = this.row(inode)
    for (const index of indexes) {
      const chunk = this.state.counters.take('nextChunk')
      row.chunks.set(index, chunk)
      this.chunks.mapped.set(chunk, [inode, index])
    }
  }
}

const openSession: Handler<'session.open'> = ({ state }, { name, host, kind, secret }) => {
  const session = state.counters.take('nextSession')
  state.sessions.set(session, { session, secret, name, host, kind, openedAtTickMs: 0 })
  return { ok: { session } }
}
