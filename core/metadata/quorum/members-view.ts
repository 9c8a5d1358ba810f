/**
 * The metadata servers as `stat` and `list-services` show them: consensus' members, where they are, which one
 * is the master, how far each is behind. What a member says of itself comes with its reports.
 */
import type { Clock } from '../../platform/clock.ts'
import { formatAddress } from '../../platform/network.ts'
import type { MetadataServerStatistics, ServiceEntry } from '../../wire/messages/statistics.ts'
import type { ChunkState } from '../chunks/handlers.ts'
import type { RaftLog } from './raft-log.ts'
import { TICK_MS } from './driver.ts'

/** What a member says of itself. */
export interface MemberReport {
  readonly ctimePct: number
  readonly commitsPerS: number
  readonly cpuPct: number
  readonly memBytes: number
  readonly uptimeMs: number
}

export const noReport: MemberReport = { ctimePct: 0, commitsPerS: 0, cpuPct: 0, memBytes: 0, uptimeMs: 0 }

/** A member that has not answered for so long is shown as inactive. */
const SILENT_TICKS = 2_000 / TICK_MS
/** Entries behind: shown as catching up. The guide's number of rounds. */
export const LAG_COUNT = 1_000

export interface MembersViewParts {
  readonly log: RaftLog
  readonly state: ChunkState
  readonly clock: Clock
  /** Of the member itself, or what it told. */
  readonly reportOf: (member: number) => MemberReport
}

export class MembersView {
  readonly #parts: MembersViewParts
  /** Of the last sample. */
  #sampled = { commitIndex: 0, nowMs: 0 }
  /** When a member was last known to hold all that was committed then. */
  readonly #levelMs = new Map<number, number>()
  readonly #startMs: number

  constructor(parts: MembersViewParts) {
    this.#parts = parts
    this.#startMs = parts.clock.nowMs()
  }

  /** Called every second or so: how far behind somebody is counts in time from here. */
  sample(): void {
    const { log, clock } = this.#parts
    const { commitIndex, members } = log.status
    const { commitIndex: before, nowMs } = this.#sampled
    for (const { member, matchIndex } of members)
      if (matchIndex >= before) this.#levelMs.set(member, matchIndex >= commitIndex ? clock.nowMs() : nowMs)
    for (const member of this.#levelMs.keys())
      if (!members.some((present) => present.member === member)) this.#levelMs.delete(member)
    this.#sampled = { commitIndex, nowMs: clock.nowMs() }
  }

  #lagMs(member: number, lag: number): number {
    if (lag === 0) return 0
    return Math.max(0, Math.round(this.#parts.clock.nowMs() - (this.#levelMs.get(member) ?? this.#startMs)))
  }

  /** Of the master only. */
  list(): MetadataServerStatistics[] {
    const { log, state, reportOf } = this.#parts
    const { id: own, term, commitIndex, members, configuration } = log.status
    const progressOf = new Map(members.map((progress) => [progress.member, progress]))
    return [...configuration.voters, ...configuration.learners]
      .toSorted((a, b) => a - b)
      .map((id) => {
        const row = state.members.get(id)
        const progress = progressOf.get(id)
        const lag = id === own ? 0 : Math.max(0, commitIndex - (progress?.matchIndex ?? 0))
        const isSilent = id !== own && (progress === undefined || progress.silentTicks > SILENT_TICKS)
        const isLearner = configuration.learners.includes(id)
        const status = isSilent ? 'inactive' : isLearner || lag > LAG_COUNT ? 'catching up' : 'active'
        const { ctimePct, commitsPerS, cpuPct, memBytes, uptimeMs } = reportOf(id)
        return {
          id,
          address: row === undefined ? '' : formatAddress(row),
          master: id === own,
          status,
          term,
          lag,
          lagMs: this.#lagMs(id, lag),
          ctimePct: round(ctimePct),
          commitsPerS: round(commitsPerS),
          cpuPct: round(cpuPct),
          memBytes,
          uptimeMs: Math.round(uptimeMs),
        }
      })
  }

  featureLevel(): { inForce: number; highest: number; waitsFor: number[] } {
    const { inForce, highest, waitsFor } = this.#parts.log.level
    return { inForce, highest, waitsFor: [...waitsFor] }
  }

  services(): ServiceEntry[] {
    const { state } = this.#parts
    return this.list().map(({ id, address, status, master, term, lag, lagMs }) => ({
      kind: 'mds',
      id,
      address,
      host: state.members.get(id)?.name ?? '',
      hostId: '',
      status,
      master,
      term,
      lag,
      lagMs,
    }))
  }
}

function round(value: number): number {
  return Math.round(value * 100) / 100
}
