/**
 * Makes the members of a dirty chunk equal before anybody may use the new epoch (rules J1, J5): the chosen
 * authority heals itself, the true size is put into the quorum (rule F8), the others join from it, all are
 * promoted, then the epoch becomes active. Any failure supersedes the epoch; another member may then be the
 * authority. Bounded in parallel; the rest waits.
 */
import { mark } from '../../../base/coverage.ts'
import { CHUNK_SIZE_BYTES } from '../../../base/units.ts'
import { codeOf } from '../../../base/errors.ts'
import type { Drive, EpochDriver } from './epoch-driver.ts'
import type { EventRecorder } from '../servers/event-recorder.ts'
import type { Joins, Source } from './joins.ts'
import type { Master } from '../servers/master.ts'
import type { ServerConnection } from '../servers/server-connection.ts'
import type { Troubles } from '../servers/troubles.ts'

const PARALLEL_COUNT_MAX = 64
const HEAL_TIMEOUT_MS = 60_000
const PROMOTE_TIMEOUT_MS = 10_000

export interface ReconcilerParts {
  readonly master: Master
  readonly driver: EpochDriver
  readonly joins: Joins
  readonly troubles: Troubles
  readonly events: EventRecorder
  readonly connectionOf: (server: number) => ServerConnection | undefined
}

export class Reconciler {
  readonly #parts: ReconcilerParts
  readonly #waiting: Drive[] = []
  #runningCount = 0

  constructor(parts: ReconcilerParts) {
    this.#parts = parts
  }

  /** Bounded by the number of pending epochs. */
  add(drive: Drive): void {
    this.#waiting.push(drive)
    this.#pump()
  }

  #pump(): void {
    while (this.#runningCount < PARALLEL_COUNT_MAX) {
      const drive = this.#waiting.shift()
      if (drive === undefined) return
      if (!this.#isCurrent(drive)) continue
      this.#runningCount += 1
      this.#run(drive)
        .catch((error: unknown) =>
          this.#parts.master.logger.error('a reconciliation failed', {
            chunk: drive.chunk,
            error: String(error),
          }),
        )
        .finally(() => {
          this.#runningCount -= 1
          if (!this.#parts.master.isStopped) this.#pump()
        })
    }
  }

  #isCurrent(drive: Drive): boolean {
    return !this.#parts.master.isStopped && this.#parts.driver.isCurrent(drive)
  }

  #fail(drive: Drive, server: number, code: string): void {
    if (this.#isCurrent(drive)) this.#parts.driver.failed(drive, server, 'exists', code)
  }

  async #run(drive: Drive): Promise<void> {
    const { joins } = this.#parts
    const members = drive.members.filter((member) => member.role === 'in-sync').map((member) => member.server)
    const authority = this.#chooseAuthority(drive.chunk, members)
    mark(
      members.length > 1 ? 'members of a dirty chunk are made equal' : 'one member of a dirty chunk is left',
    )
    if (!(await this.#heal(drive, authority, members))) return
    const others = members.filter((server) => server !== authority)
    const source = joins.addressOf(authority)
    if (source !== null) {
      const answers = await Promise.all(
        others.map((server) => joins.reconcileMember(drive.chunk, drive.version, server, source)),
      )
      if (!this.#isCurrent(drive)) return
      const failedAt = answers.findIndex((reason) => reason !== '')
      if (failedAt >= 0) return this.#fail(drive, others[failedAt] ?? authority, answers[failedAt] ?? '')
    }
    for (const server of members) {
      const code = await this.#promote(drive, server)
      if (!this.#isCurrent(drive)) return
      if (code !== '') return this.#fail(drive, server, code)
    }
    this.#parts.driver.activate(drive)
  }

  /**
   * Uncrashed first (rules J1, J3): those that went on, then those whose process died, whose page cache has
   * everything that was acknowledged, then the rest; then the lowest number, so that a repeated choice is the same.
   */
  #chooseAuthority(chunk: number, members: readonly number[]): number {
    const rank = this.#rankOf(chunk)
    const order = members.toSorted((a, b) => rank(a) - rank(b) || a - b)
    return order[0] ?? 0
  }

  /** 0: it went on; 1: its process died; 2: its host died, or its disk failed. */
  #rankOf(chunk: number): (server: number) => number {
    const { troubles } = this.#parts
    const unclean = troubles.uncleanOf(chunk)
    const crashed = troubles.crashedOf(chunk)
    return (server) => Number(unclean.has(server)) + Number(crashed.has(server))
  }

  /**
   * Rules J3, P1: an older page of a member that lost more than the authority verifies, too; it must not win over
   * what the authority holds of an acknowledged write, torn as that may be. The authority adopts it instead.
   */
  async #heal(drive: Drive, authority: number, members: readonly number[]): Promise<boolean> {
    const { joins, connectionOf } = this.#parts
    const { chunk, version } = drive
    const rank = this.#rankOf(chunk)
    const peers = members
      .filter((server) => server !== authority && rank(server) <= rank(authority))
      .map((server) => joins.addressOf(server))
      .filter((source): source is Source => source !== null)
    const connection = connectionOf(authority)
    if (connection === undefined) {
      this.#fail(drive, authority, 'DISCONNECTED')
      return false
    }
    try {
      const answer = await connection.orders.call(
        'replica.heal',
        { chunk, version, peers },
        { timeoutMs: HEAL_TIMEOUT_MS },
      )
      if (!this.#isCurrent(drive)) return false
      if (answer.adoptedPages > 0) this.#tellAdopted(chunk, authority, answer.adoptedPages)
      await this.#recoverSize(chunk, version, answer.writtenEnd)
      return this.#isCurrent(drive)
    } catch (error) {
      this.#fail(drive, authority, codeOf(error))
      return false
    }
  }

  /** Before the epoch is active, so that a master that ends here leaves the chunk dirty, not the size short. */
  async #recoverSize(chunk: number, version: number, writtenEnd: number): Promise<void> {
    const { state, log } = this.#parts.master
    const row = state.chunks.get(chunk)
    if (row === undefined || writtenEnd === 0) return
    const size = row.index * CHUNK_SIZE_BYTES + Math.min(writtenEnd, CHUNK_SIZE_BYTES)
    await log.propose({ type: 'file.recoverSize', inode: row.inode, size, chunk, version })
  }

  async #promote(drive: Drive, server: number): Promise<string> {
    const connection = this.#parts.connectionOf(server)
    if (connection === undefined) return 'DISCONNECTED'
    const { chunk, version } = drive
    try {
      await connection.orders.call('replica.promote', { chunk, version }, { timeoutMs: PROMOTE_TIMEOUT_MS })
      return ''
    } catch (error) {
      return codeOf(error)
    }
  }

  #tellAdopted(chunk: number, server: number, pages: number): void {
    const message = `CS#${server} adopted ${pages} pages of chunk ${chunk} that were being written at a crash`
    this.#parts.events.record('CS', 'warn', 'PAGES_ADOPTED', message)
  }
}
