/**
 * Makes the members of a dirty chunk equal before anybody may use the new epoch (rules J1, J5): the chosen
 * authority heals itself, the true size is put into the quorum (rule F8), the others join from it, all are
 * promoted, then the epoch becomes active. Any failure supersedes the epoch; another member may then be the
 * authority. Bounded in parallel; the rest waits, and chunks that somebody waits for go first (rule L8).
 */
import { mark } from '../../../base/coverage.ts'
import { CHUNK_SIZE_BYTES } from '../../../base/units.ts'
import { codeOf } from '../../../base/errors.ts'
import type { ChunkWaiters } from './chunk-waiters.ts'
import type { Drive, EpochDriver } from './epoch-driver.ts'
import type { EventRecorder } from '../servers/event-recorder.ts'
import type { Joins, Source } from './joins.ts'
import type { Master } from '../servers/master.ts'
import type { ServerConnection } from '../servers/server-connection.ts'
import { CRASHED_RANK_MIN, type Troubles } from '../servers/troubles.ts'

const PARALLEL_COUNT_MAX = 32
/** More of them may run for chunks that somebody waits for. */
const AWAITED_COUNT_MAX = 64
const HEAL_TIMEOUT_MS = 60_000
const PROMOTE_TIMEOUT_MS = 10_000

export interface ReconcilerParts {
  readonly master: Master
  readonly driver: EpochDriver
  readonly joins: Joins
  readonly troubles: Troubles
  readonly waiters: ChunkWaiters
  readonly events: EventRecorder
  readonly connectionOf: (server: number) => ServerConnection | undefined
}

export class Reconciler {
  readonly #parts: ReconcilerParts
  /** By chunk, in order of arrival. Bounded by the number of pending epochs. */
  readonly #waiting = new Map<number, Drive>()
  #runningCount = 0

  constructor(parts: ReconcilerParts) {
    this.#parts = parts
  }

  add(drive: Drive): void {
    this.#waiting.set(drive.chunk, drive)
    this.pump()
  }

  /** Also when somebody has begun to wait. */
  pump(): void {
    if (this.#parts.master.isStopped) return
    for (let drive = this.#next(); drive !== undefined; drive = this.#next()) {
      this.#waiting.delete(drive.chunk)
      if (this.#isCurrent(drive)) this.#start(drive)
    }
  }

  #next(): Drive | undefined {
    if (this.#waiting.size === 0 || this.#runningCount >= PARALLEL_COUNT_MAX + AWAITED_COUNT_MAX)
      return undefined
    for (const chunk of this.#parts.waiters.awaited()) {
      const drive = this.#waiting.get(chunk)
      if (drive === undefined) continue
      mark('a dirty chunk that somebody waits for is reconciled first')
      return drive
    }
    return this.#runningCount < PARALLEL_COUNT_MAX ? this.#waiting.values().next().value : undefined
  }

  #start(drive: Drive): void {
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
        this.pump()
      })
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
    const isLossy = this.#mayLack(drive.chunk, authority)
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
    const codes = await Promise.all(members.map((server) => this.#promote(drive, server)))
    if (!this.#isCurrent(drive)) return
    const refusedAt = codes.findIndex((code) => code !== '')
    if (refusedAt >= 0) return this.#fail(drive, members[refusedAt] ?? authority, codes[refusedAt] ?? '')
    this.#parts.driver.activate(drive, isLossy)
  }

  /** Rule F5: acknowledged writes, as its host crashed; or it is a stale one that an administrator has promoted. */
  #mayLack(chunk: number, authority: number): boolean {
    const { master, troubles } = this.#parts
    const row = master.state.chunks.get(chunk)
    const wasInSync = row?.members.some(({ server, role }) => server === authority && role === 'in-sync')
    const isLossy = wasInSync !== true || troubles.rankOf(chunk, authority) >= CRASHED_RANK_MIN
    if (isLossy) mark('a reconciliation may have lost acknowledged writes')
    return isLossy
  }

  /**
   * Uncrashed first (rules J1, J3): those that went on, then those whose process died, whose page cache has
   * everything that was acknowledged, then the rest, those that should remember more last. Among equals the chunk
   * decides: a repeated choice is the same, and the chunks of a take-over have different ones.
   */
  #chooseAuthority(chunk: number, members: readonly number[]): number {
    const rank = this.#rankOf(chunk)
    const best = Math.min(...members.map(rank))
    const equals = members.filter((server) => rank(server) === best).toSorted((a, b) => a - b)
    return equals[chunk % equals.length] ?? 0
  }

  #rankOf(chunk: number): (server: number) => number {
    return (server) => this.#parts.troubles.rankOf(chunk, server)
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
    // Most chunks of most files.
    if (size <= (state.inodes.get(row.inode)?.size ?? 0)) return
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
