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
/** Entries behind: shown as catching up. */
const LAG_COUNT = 1_000

export interface MembersViewParts {
  readonly log: RaftLog
  readonly state: ChunkState
  readonly clock: Clock
  /** Of the member itself, or what it told. */
  readonly reportOf: (member: number) => MemberReport
}

export class MembersView {
  readonly #parts: MembersViewParts

  constructor(parts: MembersViewParts) {
    this.#parts = parts
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
    return this.list().map(({ id, address, status }) => ({
      kind: 'mds',
      id,
      address,
      host: state.members.get(id)?.name ?? '',
      hostId: '',
      status,
    }))
  }
}

function round(value: number): number {
  return Math.round(value * 100) / 100
}
