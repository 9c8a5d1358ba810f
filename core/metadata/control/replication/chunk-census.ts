/**
 * Counts chunks by state as the guide names them, by a paced scan that never holds the event loop for long,
 * and shows recovery everything that is not as it should be. Each chunk counts in exactly one of healthy …
 * void; the other numbers are extra.
 */
import { placementOf } from '../../chunks/sharing.ts'
import type { ChunkRow } from '../../state/rows.ts'
import type { ChunkWaiters } from './chunk-waiters.ts'
import type { Joins } from './joins.ts'
import type { Master } from '../servers/master.ts'
import type { ServersView } from '../servers/servers-view.ts'

export interface ChunkCounts {
  total: number
  healthy: number
  standby: number
  degraded: number
  urgent: number
  blocked: number
  offline: number
  void: number
  replicating: number
  pending: number
  overcommitted: number
  deleting: number
}

export type ChunkClass = 'healthy' | 'standby' | 'degraded' | 'urgent' | 'blocked' | 'offline' | 'void'

const SLOTS_PER_SLICE = 1000
const SLICE_PAUSE_MS = 10
const PASS_PAUSE_MS = 500
/** A large table is walked less often: a pass takes at most a small part of the time. */
const PASS_PAUSE_MS_PER_CHUNK = 0.02

export interface CensusParts {
  readonly master: Master
  readonly view: ServersView
  readonly joins: Joins
  readonly waiters: ChunkWaiters
  /** Replicas whose state could not be read. */
  readonly isVoid: (row: ChunkRow) => boolean
  readonly look: (chunk: number) => void
}

function noCounts(): ChunkCounts {
  return {
    total: 0,
    healthy: 0,
    standby: 0,
    degraded: 0,
    urgent: 0,
    blocked: 0,
    offline: 0,
    void: 0,
    replicating: 0,
    pending: 0,
    overcommitted: 0,
    deleting: 0,
  }
}

export class ChunkCensus {
  readonly #parts: CensusParts
  #finished = noCounts()
  #counting = noCounts()
  #finishedReplicas = 0
  #replicas = 0
  #cursor = 0
  #passCount = 0

  constructor(parts: CensusParts) {
    this.#parts = parts
  }

  start(): void {
    this.#slice()
  }

  /** As of the last complete pass. */
  get counts(): Readonly<ChunkCounts> {
    return { ...this.#finished, deleting: this.#parts.master.state.condemned.size }
  }

  get replicaCount(): number {
    return this.#finishedReplicas
  }

  get passCount(): number {
    return this.#passCount
  }

  #slice(): void {
    const { chunks } = this.#parts.master.state
    const next = chunks.scan(this.#cursor, SLOTS_PER_SLICE, (row) => this.#count(row))
    if (next >= 0) {
      this.#cursor = next
      this.#parts.master.after(SLICE_PAUSE_MS, () => this.#slice())
      return
    }
    this.#finished = this.#counting
    this.#finishedReplicas = this.#replicas
    this.#counting = noCounts()
    this.#replicas = 0
    this.#cursor = 0
    this.#passCount += 1
    const pauseMs = PASS_PAUSE_MS + chunks.size * PASS_PAUSE_MS_PER_CHUNK
    this.#parts.master.after(pauseMs, () => this.#slice())
  }

  #count(row: ChunkRow): void {
    const { joins, waiters, look } = this.#parts
    const counts = this.#counting
    const chunkClass = this.classOf(row)
    counts.total += 1
    counts[chunkClass] += 1
    this.#replicas += row.members.length
    const isReplicating = joins.isReplicating(row.chunk)
    if (isReplicating) counts.replicating += 1
    if (waiters.isAwaited(row.chunk)) counts.pending += 1
    const isOver = this.#isOvercommitted(row)
    if (isOver) counts.overcommitted += 1
    const isUnsettled = row.pending !== null || row.dirtyDead || (chunkClass !== 'healthy' && !isReplicating)
    const isOnFailing = row.members.some(({ server }) => this.#parts.view.isFailing(server))
    if (isUnsettled || isOver || isOnFailing || this.#hasWrongWritable(row)) look(row.chunk)
  }

  classOf(row: ChunkRow): ChunkClass {
    const placement = placementOf(this.#parts.master.state, row)
    // Held by nobody: every overlay that needs it has it.
    if (placement === undefined) return 'healthy'
    const { replicasNormal, replicasMinimum } = placement
    let active = 0
    let silent = 0
    for (const member of row.members) {
      if (member.role !== 'in-sync') continue
      const state = this.#parts.view.serverOf(member.server)?.state
      if (state === 'active') active += 1
      else if (state === 'inactive') silent += 1
    }
    if (active === 0) return 'offline'
    if (this.#parts.isVoid(row)) return 'void'
    if (active < replicasMinimum) return 'blocked'
    if (active >= replicasNormal) return 'healthy'
    if (active + silent >= replicasNormal) return 'standby'
    return active === replicasMinimum ? 'urgent' : 'degraded'
  }

  #isOvercommitted(row: ChunkRow): boolean {
    const placement = placementOf(this.#parts.master.state, row)
    if (placement === undefined) return false
    const inSyncCount = row.members.filter((member) => member.role === 'in-sync').length
    return inSyncCount > placement.replicasNormal
  }

  /** `min` was changed by attributes (rule A4). */
  #hasWrongWritable(row: ChunkRow): boolean {
    const placement = placementOf(this.#parts.master.state, row)
    if (placement === undefined) return false
    const inSyncCount = row.members.filter((member) => member.role === 'in-sync').length
    return row.writable !== inSyncCount >= placement.replicasMinimum
  }
}
