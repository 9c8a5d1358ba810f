/**
 * Carries what was applied to the parts that follow it. One place, so that the order is visible: first the
 * parts that act for chunks (driver, joins), then those who wait, then the holders are told.
 */
import type { LogCommand } from '../../state/commands.ts'
import type { CommandResult } from '../../state/result.ts'
import type { ChunkWaiters } from './chunk-waiters.ts'
import type { EpochDriver } from './epoch-driver.ts'
import type { Joins } from './joins.ts'
import type { Master } from '../servers/master.ts'
import type { Promotions } from './promotions.ts'
import type { Recovery } from './recovery.ts'
import type { ServerOrders } from '../servers/server-orders.ts'
import type { Troubles } from '../servers/troubles.ts'

export interface ChangeParts {
  readonly master: Master
  readonly driver: EpochDriver
  readonly joins: Joins
  readonly promotions: Promotions
  readonly recovery: Recovery
  readonly orders: ServerOrders
  readonly troubles: Troubles
  readonly waiters: ChunkWaiters
  readonly onMoved: (chunk: number) => void
  readonly onLeasesEnded: () => void
  readonly onSessionEnded: (session: number) => void
  readonly onIntentEnded: (chunk: number) => void
  readonly onConfigChanged: () => void
}

const SWEEP_MS = 1000

export class Changes {
  readonly #parts: ChangeParts

  constructor(parts: ChangeParts) {
    this.#parts = parts
    parts.master.every(SWEEP_MS, () => this.#sweep())
  }

  /** An AppliedListener of the log. */
  onApplied(entry: LogCommand, result: CommandResult): void {
    if (!('ok' in result) || this.#parts.master.isStopped) return
    const { command } = entry
    // Outcomes have the form their handlers in chunks/ give them.
    const outcome = result.ok as Record<string, unknown>
    switch (command.type) {
      case 'epoch.propose':
      case 'replica.promote':
        return this.#proposed((outcome['proposed'] as { chunk: number }[]).map((entry_) => entry_.chunk))
      case 'epoch.activate':
        return this.#activated(outcome['activated'] as number[])
      case 'join.complete':
        return this.#joined(outcome['completed'] as { chunk: number; server: number; version: number }[])
      case 'chunk.create':
        for (const chunk of outcome['created'] as number[]) this.#parts.recovery.look(chunk, 'later')
        return
      case 'intent.clear':
        return this.#cleared(outcome['cleared'] as number[])
      case 'session.expire':
        for (const chunk of outcome['dirty'] as number[]) this.#dirty(chunk)
        this.#parts.onSessionEnded(command.session)
        this.#parts.onLeasesEnded()
        return
      case 'lease.release':
      case 'lease.return':
        // What was not given back in order is dirty now; the census shows it to recovery.
        this.#parts.onLeasesEnded()
        return
      case 'admin.setConfig':
        this.#parts.onConfigChanged()
        return
      default:
        return
    }
  }

  /** A new master: everything that is under way starts over (rule E1). */
  takeOver(): void {
    const { master, driver, joins, recovery } = this.#parts
    for (const chunk of [...master.state.chunks.pendingChunks()]) {
      driver.start(chunk)
      recovery.look(chunk, 'urgent')
    }
    for (const chunk of master.state.chunks.dirtyDeadChunks()) recovery.look(chunk, 'urgent')
    // Not a look at every chunk: that is more than a second for five million.
    for (const chunk of master.state.chunks.joiningChunks()) joins.follow(chunk, 1)
  }

  #proposed(chunks: readonly number[]): void {
    const { driver, joins, recovery } = this.#parts
    for (const chunk of chunks) {
      driver.start(chunk)
      joins.follow(chunk, recovery.queuedCount)
    }
  }

  #activated(chunks: readonly number[]): void {
    const { driver, joins, recovery, troubles, waiters, onMoved } = this.#parts
    for (const chunk of chunks) {
      const isHealed = driver.driveOf(chunk)?.reconcile !== false
      driver.ended(chunk)
      troubles.settle(chunk, isHealed ? [] : this.#uncleanMembers(chunk))
      joins.follow(chunk, recovery.queuedCount + 1)
      waiters.wake(chunk)
      recovery.look(chunk, 'later')
      onMoved(chunk)
    }
  }

  /** An unclean member is never asked to persist a plain epoch: it became so after its answer. */
  #uncleanMembers(chunk: number): number[] {
    const { master, troubles } = this.#parts
    const unclean = troubles.uncleanOf(chunk)
    const members = master.state.chunks.get(chunk)?.members ?? []
    return members
      .filter(({ server, role }) => role === 'in-sync' && unclean.has(server))
      .map(({ server }) => server)
  }

  #joined(completed: readonly { chunk: number; server: number; version: number }[]): void {
    const { promotions, joins, recovery, onMoved } = this.#parts
    for (const { chunk, server, version } of completed) {
      promotions.promote(chunk, version, server)
      joins.follow(chunk, recovery.queuedCount)
      recovery.look(chunk, 'later')
      onMoved(chunk)
    }
    if (completed.length > 0) recovery.roomForJoins()
  }

  #cleared(chunks: readonly number[]): void {
    const { orders, recovery, onIntentEnded, master } = this.#parts
    for (const chunk of chunks) {
      const row = master.state.chunks.get(chunk)
      // The open-list entries of what is not settled stay a little longer (servers/disk-marks.ts).
      if (!master.state.unsettled.has(chunk))
        for (const member of row?.members ?? []) orders.close(member.server, chunk)
      onIntentEnded(chunk)
      recovery.look(chunk, 'later')
    }
  }

  #dirty(chunk: number): void {
    this.#parts.onIntentEnded(chunk)
    this.#parts.recovery.look(chunk, 'urgent')
  }

  /** Chunks that were dropped in the middle of something. */
  #sweep(): void {
    const { driver, joins, master, waiters } = this.#parts
    for (const chunk of driver.chunks()) {
      const row = master.state.chunks.get(chunk)
      if (row === undefined || row.pending === null) {
        driver.ended(chunk)
        waiters.wake(chunk)
      }
    }
    for (const chunk of joins.chunks()) if (!master.state.chunks.has(chunk)) joins.follow(chunk, 0)
    joins.orderAgainIfStuck()
  }
}
