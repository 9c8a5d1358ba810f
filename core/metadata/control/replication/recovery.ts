/**
 * Decides what happens to chunks: takes them from a queue, most urgent first, lets placement plan, and
 * proposes epochs. Everything that may matter to a chunk calls `look`; a paced scan of all chunks
 * (chunk-census.ts) calls it for whatever is not as it should be, so nothing is forgotten for long. Re-joining
 * always runs; new copies wait while the cluster has failed or too many joins run (rules A3, J6).
 */
import { mark } from '../../../base/coverage.ts'
import { type ChunkSituation, type Plan, type PlannedEpoch, planChunk } from '../../../placement/plan.ts'
import { placementOf } from '../../chunks/sharing.ts'
import type { EpochProposal } from '../../state/commands.ts'
import type { ChunkRow } from '../../state/rows.ts'
import type { DamagedReplicas } from './damaged-replicas.ts'
import type { EpochDriver } from './epoch-driver.ts'
import type { EventRecorder } from '../servers/event-recorder.ts'
import type { Joins } from './joins.ts'
import type { Master } from '../servers/master.ts'
import { ServerScans } from '../servers/server-scans.ts'
import type { ServersView } from '../servers/servers-view.ts'
import type { Troubles } from '../servers/troubles.ts'

/** `first`: somebody waits; `urgent`: at or below min, or a writer is affected; `later`: the rest. */
export type Urgency = 'first' | 'urgent' | 'later'

const CHUNKS_PER_TURN_MAX = 64
const QUEUED_COUNT_MAX = 200_000
/** A scan of a server goes on when fewer wait. */
const SCANNED_COUNT_MAX = 50_000
const DELAYED_COUNT_MAX = 100_000
const TICK_MS = 250
/** Room a joiner must find: chunks are sparse, so this is no more than a plausible minimum. */
const JOIN_BYTES_MIN = 1024 * 1024

export interface RecoveryParts {
  readonly master: Master
  readonly view: ServersView
  readonly troubles: Troubles
  readonly damaged: DamagedReplicas
  readonly driver: EpochDriver
  readonly joins: Joins
  readonly events: EventRecorder
  /** Not while the cluster has failed: then the operator acts first. */
  readonly mayCopy: () => boolean
}

export class Recovery {
  readonly #parts: RecoveryParts
  readonly #scans: ServerScans
  readonly #queues: Record<Urgency, Set<number>> = { first: new Set(), urgent: new Set(), later: new Set() }
  /** Chunks whose pending epoch must be replaced if it can be. */
  readonly #supersede = new Set<number>()
  /** Chunks for which an intent is about to be granted: silent members leave first (rule L7). */
  readonly #intentWanted = new Set<number>()
  /** Looked at again when this time has come. */
  readonly #delayed = new Map<number, number>()
  /** Would get a joiner if limits allowed. */
  readonly #starved = new Set<number>()
  readonly #inFlight = new Set<number>()
  /** Requests that wait until their chunk was looked at; as many as requests in flight. */
  readonly #deciding = new Map<number, (() => void)[]>()
  #isScheduled = false

  constructor(parts: RecoveryParts) {
    this.#parts = parts
    const { master } = parts
    this.#scans = new ServerScans({
      chunks: master.state.chunks,
      leases: () => [...master.state.leases.keys()],
      defer: (callback) => master.defer(callback),
      isFull: () => this.#queues.later.size > SCANNED_COUNT_MAX,
      look: (chunk, urgency) => void this.look(chunk, urgency),
    })
    master.every(TICK_MS, () => this.#tick())
  }

  /** Chunks that wait for a decision or for room to be copied. */
  get queuedCount(): number {
    const { first, urgent, later } = this.#queues
    return first.size + urgent.size + later.size + this.#starved.size
  }

  /** False: the queue is full; the scan comes back to it. */
  look(chunk: number, urgency: Urgency): boolean {
    const queue = this.#queues[urgency]
    if (urgency === 'later' && queue.size >= QUEUED_COUNT_MAX) return false
    queue.add(chunk)
    this.#schedule()
    return true
  }

  /** Before an intent is granted on a chunk that has silent members. Resolves as `decided`. */
  prepareForIntent(chunk: number): Promise<void> {
    this.#intentWanted.add(chunk)
    return this.decided(chunk)
  }

  /** Resolves when the chunk was looked at and what came of it is applied (then it may be pending). */
  decided(chunk: number): Promise<void> {
    return new Promise((resolve) => {
      const waiting = this.#deciding.get(chunk)
      if (waiting === undefined) this.#deciding.set(chunk, [resolve])
      else waiting.push(resolve)
      this.look(chunk, 'first')
    })
  }

  #tellDecided(chunk: number): void {
    const waiting = this.#deciding.get(chunk)
    if (waiting === undefined) return
    this.#deciding.delete(chunk)
    for (const resolve of waiting) resolve()
  }

  /** A member of the chunk must go, if it can. */
  memberFailed(chunk: number, server: number, kind: 'exists' | 'lost', urgency: Urgency): void {
    const { troubles, master } = this.#parts
    troubles.addFailed(chunk, server, kind)
    troubles.bar(chunk, server)
    if (master.state.chunks.get(chunk)?.pending !== null) this.#supersede.add(chunk)
    this.look(chunk, urgency)
  }

  /** A member restarted with unverified contents: no pending epoch may go on with it as it is. */
  memberUnclean(chunk: number): void {
    if (this.#parts.master.state.chunks.get(chunk)?.pending !== null) this.#supersede.add(chunk)
    this.look(chunk, 'urgent')
  }

  /** A server came, went or changed. Writers first. */
  serverChanged(server: number): void {
    this.#scans.start(server)
  }

  /** A join ended: another chunk may have its place. */
  roomForJoins(): void {
    for (const chunk of this.#starved) {
      this.#starved.delete(chunk)
      if (!this.look(chunk, 'later') || this.#queues.later.size > CHUNKS_PER_TURN_MAX) return
    }
  }

  #tick(): void {
    const nowMs = this.#parts.master.clock.nowMs()
    for (const [chunk, atMs] of this.#delayed) {
      if (atMs > nowMs) continue
      this.#delayed.delete(chunk)
      this.look(chunk, 'later')
    }
    this.#scans.resume()
    if (this.#starved.size > 0) this.roomForJoins()
    else if (this.queuedCount === 0 && !this.#scans.isRunning) this.#parts.joins.maybeComplete()
  }

  #schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    this.#parts.master.defer(() => {
      this.#isScheduled = false
      this.#turn()
    })
  }

  #turn(): void {
    if (this.#parts.master.isInRecovery) return
    const proposals: EpochProposal[] = []
    let left = CHUNKS_PER_TURN_MAX
    for (const urgency of ['first', 'urgent', 'later'] as const) {
      const queue = this.#queues[urgency]
      for (const chunk of queue) {
        if (left === 0) break
        // Its proposal is not applied yet: it is looked at again afterwards.
        if (this.#inFlight.has(chunk)) continue
        for (const other of Object.values(this.#queues)) other.delete(chunk)
        left -= 1
        const proposal = this.#decide(chunk)
        if (proposal === null) this.#tellDecided(chunk)
        else proposals.push(proposal)
      }
    }
    if (proposals.length > 0) this.#propose(proposals)
    if (left === 0) this.#schedule()
  }

  #propose(epochs: EpochProposal[]): void {
    for (const { chunk } of epochs) this.#inFlight.add(chunk)
    this.#parts.master.submit({ type: 'epoch.propose', epochs }, () => {
      for (const { chunk } of epochs) {
        this.#inFlight.delete(chunk)
        this.#supersede.delete(chunk)
        this.#tellDecided(chunk)
      }
      this.#schedule()
    })
  }

  #decide(chunk: number): EpochProposal | null {
    const { master } = this.#parts
    const row = master.state.chunks.get(chunk)
    if (row === undefined) {
      this.#forget(chunk)
      return null
    }
    const isDirtyPending = row.pending !== null && row.dirtyDead && !row.pending.reconcile
    if (row.pending !== null && !isDirtyPending && !this.#supersede.has(chunk)) return null
    const plan = this.#plan(row)
    this.#starved.delete(chunk)
    if (plan === null) return null
    if (plan.kind === 'change') return this.#proposalOf(row, plan)
    if (plan.kind === 'wait' && plan.reason === 'awaited') {
      mark('a chunk waits for a server that a new master has not heard of')
      // Looked at again when the server is there or given up; what is known against others stays until then.
      this.#intentWanted.delete(chunk)
      return null
    }
    if (row.pending !== null) return this.#fallback(row)
    this.#intentWanted.delete(chunk)
    this.#parts.troubles.forgive(chunk)
    if (plan.kind === 'wait') this.#waits(row, plan)
    return null
  }

  #forget(chunk: number): void {
    this.#supersede.delete(chunk)
    this.#intentWanted.delete(chunk)
    this.#starved.delete(chunk)
    this.#delayed.delete(chunk)
    this.#parts.troubles.forget(chunk)
  }

  #plan(row: ChunkRow): Plan | null {
    const { master, view, troubles } = this.#parts
    const placement = placementOf(master.state, row)
    if (placement === undefined) return null
    const barred = troubles.barredOf(row.chunk)
    this.#barUnusable(row, barred)
    const situation: ChunkSituation = {
      members: row.members,
      former: row.former.map((entry) => entry.server),
      fresh: this.#parts.joins.freshOf(row),
      hasIntent: row.intentLease !== 0 || this.#intentWanted.has(row.chunk),
      // What was half reconciled is reconciled again, whatever started it.
      dirtyDead: row.dirtyDead || row.pending?.reconcile === true,
      writable: row.writable,
      replicasNormal: placement.replicasNormal,
      replicasMinimum: placement.replicasMinimum,
      failed: troubles.failedOf(row.chunk),
      unclean: troubles.uncleanOf(row.chunk),
      rolledBack: { has: (server) => troubles.uncleanOf(row.chunk).get(server) === 'rolled-back' },
      awaited: new Set(row.members.map(({ server }) => server).filter((server) => view.isAwaited(server))),
      barred,
      mayCopy: this.#parts.mayCopy() && view.joinTotal < master.parameter('mds.replication.max'),
    }
    const policy = {
      failureDomain: placement.failureDomain,
      tier: placement.tier,
      fillMarginPct: master.parameter('mds.alloc.fill_margin'),
      replicaBytes: JOIN_BYTES_MIN,
    }
    return planChunk(situation, view.serverOf, view.forJoins(), policy, master.random)
  }

  /** Not where a replica of this chunk cannot be read, or waits for its deletion. */
  #barUnusable(row: ChunkRow, barred: Set<number>): void {
    const { master, damaged } = this.#parts
    for (const { server } of row.former) if (damaged.has(row.chunk, server)) barred.add(server)
    if (master.state.condemned.size === 0) return
    for (const server of master.state.servers.keys()) {
      if (master.state.condemned.has(row.chunk, server)) barred.add(server)
    }
  }

  #proposalOf(row: ChunkRow, plan: PlannedEpoch): EpochProposal {
    const { driver, joins, master } = this.#parts
    driver.hintCopying(row.chunk, plan.copying)
    joins.noteRejoining(row.chunk, plan.rejoining)
    master.logger.debug('epoch proposed', { chunk: row.chunk, reason: plan.reason, from: row.version })
    if (plan.shortage !== '') this.#tellShortage(row, plan.shortage, 1)
    return {
      chunk: row.chunk,
      from: row.pending?.version ?? row.version,
      members: plan.members.map(({ server, role }) => ({ server, role, since: 0, attempt: 0 })),
      reconcile: plan.reconcile,
      leaving: [...plan.leaving],
    }
  }

  /** The pending epoch cannot go on and nothing better is known: those in-sync members that answer (rule E1). */
  #fallback(row: ChunkRow): EpochProposal | null {
    const { view, troubles, driver } = this.#parts
    const drive = driver.driveOf(row.chunk)
    const failed = troubles.failedOf(row.chunk)
    const unclean = troubles.uncleanOf(row.chunk)
    const willing = row.members.filter(
      ({ role, server }) =>
        role === 'in-sync' && view.isReachable(server) && !failed.has(server) && !unclean.has(server),
    )
    troubles.forgive(row.chunk)
    this.#supersede.delete(row.chunk)
    const pendingServers = row.pending?.members.map((member) => member.server) ?? []
    const isSame =
      willing.length === pendingServers.length &&
      willing.every((member) => pendingServers.includes(member.server))
    // The driver keeps asking those that are pending (rule G2: the last one is waited for).
    if (willing.length === 0 || (isSame && drive !== undefined)) return null
    return {
      chunk: row.chunk,
      from: row.pending?.version ?? row.version,
      members: willing,
      reconcile: row.dirtyDead || row.pending?.reconcile === true,
      leaving: [],
    }
  }

  #waits(row: ChunkRow, plan: Extract<Plan, { kind: 'wait' }>): void {
    const { troubles, master } = this.#parts
    if (plan.shortage !== '') this.#tellShortage(row, plan.shortage, 1)
    const barredUntilMs = troubles.barredUntilMs(row.chunk)
    if (barredUntilMs > 0 && this.#delayed.size < DELAYED_COUNT_MAX) {
      this.#delayed.set(row.chunk, barredUntilMs)
    } else if (plan.reason === 'no-target' || plan.reason === 'copies-not-allowed') {
      const isLimited = this.#parts.view.joinTotal > 0 && this.#starved.size < QUEUED_COUNT_MAX
      if (isLimited && this.#parts.mayCopy()) this.#starved.add(row.chunk)
    }
    master.logger.debug('chunk waits', { chunk: row.chunk, reason: plan.reason, shortage: plan.shortage })
  }

  #tellShortage(row: ChunkRow, shortage: string, count: number): void {
    const { view, events } = this.#parts
    const all = view.forNewChunks()
    const available = all.filter((server) => server.state === 'active').length
    const why =
      shortage === 'failure-domain'
        ? 'the failure domain allows no other place'
        : `${available} out of ${all.length} chunk servers are available`
    const message = `Failed to allocate ${count} replicas for inode ${row.inode} - ${why}`
    events.record('MDS', 'warn', 'ALLOCATION_FAILED', message, shortage)
  }
}
