/** A state machine with all handlers and short calls, for tests of rules: no log, no time. */
import type { OutcomeOf } from '../metadata/state/apply.ts'
import type { Command } from '../metadata/state/commands.ts'
import type { CommandResult } from '../metadata/state/result.ts'
import type { ChunkRow } from '../metadata/state/rows.ts'
import type { ChunkState } from '../metadata/chunks/handlers.ts'
import { createStateMachine } from '../metadata/state/machine.ts'

export class ChunkMachine {
  readonly #machine = createStateMachine()
  readonly state: ChunkState = this.#machine.state
  #index = 0
  #sequence = 0

  get index(): number {
    return this.#index
  }

  apply<C extends Command>(command: C): CommandResult<OutcomeOf<C['type']>> {
    this.#index += 1
    const entry = { command, wallSeconds: 1000 + this.#index, wallNanoseconds: 0 }
    return this.#machine.apply(entry, this.#index) as CommandResult<OutcomeOf<C['type']>>
  }

  /** The outcome of a command that must not be refused. */
  done<C extends Command>(command: C): OutcomeOf<C['type']> {
    const result = this.apply(command)
    if ('error' in result) throw new Error(`${command.type}: ${result.error} ${result.message}`)
    return result.ok
  }

  mutation(): { sequence: number; acknowledgedBelow: number } {
    this.#sequence += 1
    return { sequence: this.#sequence, acknowledgedBelow: this.#sequence }
  }

  addServers(count: number): number[] {
    const servers: number[] = []
    for (let number = 1; number <= count; number++) {
      const facts = { hostId: `h${number}`, hostName: `h${number}`, location: '0.0.0', host: `h${number}` }
      const counts = { tier: 0, port: 1, totalBytes: 1, checksums: true, incarnation: 1, crashes: 0 }
      const identity = { server: 0, storeUuid: `store ${number}`, registration: 0 }
      const { server } = this.done({ type: 'server.register', ...identity, ...facts, ...counts })
      this.done({ type: 'server.state', server, state: 'active' })
      servers.push(server)
    }
    return servers
  }

  openSession(): number {
    return this.done({ type: 'session.open', name: 's', host: 'h', kind: 'test', secret: 'x' }).session
  }

  createFile(session: number, name: string): number {
    const owner = { uid: 0, gid: 0, mode: 0o644 }
    const what = { parent: 1, name, exclusive: true, lease: false }
    const command = { type: 'fs.create' as const, session, mutation: this.mutation(), ...what, ...owner }
    return this.done(command).attributes.inode
  }

  setReplicas(session: number, inode: number, replicasNormal: number, replicasMinimum: number): void {
    const attributes = { replicasNormal, replicasMinimum }
    this.done({ type: 'attr.set', session, mutation: this.mutation(), inode, recursive: false, attributes })
  }

  lease(session: number, inode: number): number {
    const mutation = this.mutation()
    return this.done({ type: 'lease.acquire', session, mutation, inode, pinned: false }).lease
  }

  /** A new chunk under the lease; its id. */
  createChunk(lease: number, inode: number, index: number, members: number[]): number {
    const { from } = this.done({ type: 'chunk.reserve', count: 1 })
    const chunks = [{ chunk: from, index, members }]
    this.done({ type: 'chunk.create', lease, inode, chunks })
    return from
  }

  /** A child of what the file has at this index, on all members in sync; its id. 0: refused. */
  branch(lease: number, inode: number, index: number): number {
    const parent = this.state.inodes.get(inode)?.chunks.get(index) ?? 0
    const { members, version } = this.row(parent)
    const { from } = this.done({ type: 'chunk.reserve', count: 1 })
    const servers = members.filter(({ role }) => role === 'in-sync').map(({ server }) => server)
    const chunks = [{ chunk: from, parent, version: version + 1, members: servers }]
    const result = this.apply({ type: 'chunk.branch', lease, inode, chunks })
    return 'ok' in result && result.ok.branched.length === 1 ? from : 0
  }

  snapshot(session: number, inode: number, name: string): number {
    const command = { type: 'snapshot.create' as const, session, inode, name, path: `/${name}` }
    return this.done({ ...command, mutation: this.mutation() }).snapshot
  }

  deleteSnapshot(session: number, snapshot: number): void {
    this.done({ type: 'snapshot.delete', session, mutation: this.mutation(), snapshot })
    this.done({ type: 'file.collect', inodes: [snapshot] })
  }

  release(session: number, inode: number, lease: number): void {
    this.done({ type: 'lease.release', session, mutation: this.mutation(), inode, lease })
  }

  row(chunk: number): ChunkRow {
    const row = this.state.chunks.get(chunk)
    if (row === undefined) throw new Error(`no chunk ${chunk}`)
    return row
  }

  /** True when the proposal became pending. */
  propose(
    chunk: number,
    from: number,
    inSync: readonly number[],
    options: { joining?: readonly number[]; reconcile?: boolean; lost?: readonly number[] } = {},
  ): boolean {
    const members = [
      ...inSync.map((server) => ({ server, role: 'in-sync' as const, since: 0, attempt: 0 })),
      ...(options.joining ?? []).map((server) => ({
        server,
        role: 'joining' as const,
        since: 0,
        attempt: 0,
      })),
    ]
    const leaving = (options.lost ?? []).map((server) => ({ server, exists: false }))
    const epoch = { chunk, from, members, reconcile: options.reconcile ?? false, leaving }
    const outcome = this.done({ type: 'epoch.propose', epochs: [epoch] }) as { proposed: unknown[] }
    return outcome.proposed.length === 1
  }

  activate(chunk: number, version: number): boolean {
    const epochs = [{ chunk, version }]
    const outcome = this.done({ type: 'epoch.activate', epochs }) as { activated: unknown[] }
    return outcome.activated.length === 1
  }
}
