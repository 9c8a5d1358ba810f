/** The administrator's methods: events, parameters, chunk listing and repair for fsck, shutdown. */
import type { adminMethods } from '../../../wire/messages/metadata.ts'
import type { ParamsOf, ResultOf } from '../../../wire/messages/method.ts'
import { formatParameter, levelOfParameter, type ParameterName, parameters } from '../../chunks/parameters.ts'
import { isSettled } from '../../control/replication/chunk-waiters.ts'
import type { ChunkCheck } from '../../control/scrub/chunk-check.ts'
import type { Master } from '../../control/servers/master.ts'
import { wireError } from '../../errors.ts'
import { valueOf } from '../../state/result.ts'
import type { ChunkRow } from '../../state/rows.ts'
import type { Formation } from '../../quorum/formation.ts'
import type { Statistics } from './cluster-statistics.ts'
import type { Locations } from './locations.ts'
import type { MemberReports } from './member-reports.ts'

type AdminMethods = typeof adminMethods
type Params<N extends keyof AdminMethods> = ParamsOf<AdminMethods, N>
type Result<N extends keyof AdminMethods> = ResultOf<AdminMethods, N>

/** Ids looked at for one page at most: gaps are wide where files were deleted. */
const IDS_PER_PAGE_MAX = 200_000
/** Wider gaps are stepped over; those of metadata that began anew have no end (chunks/renewal.ts). */
const GAP_IDS_MAX = 10_000
const SHUTDOWN_DELAY_MS = 100

export interface AdminParts {
  readonly master: Master
  readonly statistics: Statistics
  readonly locations: Locations
  readonly reports: MemberReports
  readonly check: ChunkCheck
  readonly formation: Formation
  readonly onShutdown: () => void
}

export class AdminService {
  readonly #parts: AdminParts

  constructor(parts: AdminParts) {
    this.#parts = parts
  }

  stat(): Result<'admin.stat'> {
    return this.#parts.statistics.stat()
  }

  services(): Result<'admin.services'> {
    return { services: this.#parts.statistics.services() }
  }

  /** Events behind `after`, oldest first; `after` 0 gives the newest. */
  events({ after, limit }: Params<'admin.events'>): Result<'admin.events'> {
    const { state } = this.#parts.master
    const last = state.counters.get('nextEvent') - 1
    const first = after === 0 ? last - limit + 1 : after + 1
    const events: Result<'admin.events'>['events'] = []
    for (let id = Math.max(first, last - state.events.size + 1, 1); id <= last; id++) {
      const event = state.events.get(id)
      if (event !== undefined) events.push(event)
      if (events.length === limit) break
    }
    return { events, last }
  }

  getConfig(): Result<'admin.getConfig'> {
    const values: Record<string, string | number> = {}
    for (const key of Object.keys(parameters) as ParameterName[]) {
      values[key] = formatParameter(key, this.#parts.master.parameter(key))
    }
    return { values }
  }

  async setConfig(session: number, params: Params<'admin.setConfig'>): Promise<Result<'admin.setConfig'>> {
    const { state, log } = this.#parts.master
    const needed = levelOfParameter(params.key)
    // it would be refused as unknown, which it is to the older ones
    if (needed > state.level.inForce) {
      const message = `${params.key} comes with feature level ${needed}, in force is ${state.level.inForce}`
      throw wireError('FEATURE_LEVEL', `${message}: update all metadata servers first`)
    }
    return valueOf(await log.propose({ type: 'admin.setConfig', session, ...params }))
  }

  /** By rising id; ids are never reused, so a page boundary loses nothing. */
  chunks({ after, limit }: Params<'admin.chunks'>): Result<'admin.chunks'> {
    const { locations, master } = this.#parts
    const nextId = master.state.counters.get('nextChunk')
    const rows: ChunkRow[] = []
    let id = after
    let gapCount = 0
    for (let lookedAt = 1; rows.length < limit && ++id < nextId; lookedAt++) {
      const row = master.state.chunks.get(id)
      // A page is never empty before the end: the next one starts behind its last chunk.
      if (lookedAt >= IDS_PER_PAGE_MAX && rows.length > 0) break
      gapCount = row === undefined ? gapCount + 1 : 0
      if (row !== undefined) rows.push(row)
      if (gapCount < GAP_IDS_MAX) continue
      const next = master.state.chunks.idAfter(id)
      id = next === 0 ? nextId : next - 1
      gapCount = 0
    }
    return {
      chunks: rows.map((row) => ({
        inode: row.inode,
        busy: row.intentLease !== 0 || !isSettled(row),
        location: locations.locationOf(row),
      })),
      servers: locations.addressesOf(rows),
      end: id >= nextId,
    }
  }

  async check({ chunk, repairs }: Params<'admin.check'>): Promise<Result<'admin.check'>> {
    const checked = await this.#parts.check.check(chunk, { depth: 'pages', repairs })
    const none = { replicas: 0, pages: 0, isCompared: false, problemCount: 0, problems: [] }
    if (checked === null) return { exists: false, ...none }
    const { servers, pages, isCompared, problemCount, problems } = checked
    return { exists: true, replicas: servers.length, pages, isCompared, problemCount, problems }
  }

  repair({ chunk, server, page, reason }: Params<'admin.repair'>): Result<'admin.repair'> {
    this.#parts.reports.repairByOrder(chunk, server, page, reason)
    return {}
  }

  addMember({ host, port, name, level }: Params<'mds.add'>): Promise<Result<'mds.add'>> {
    return this.#parts.formation.add(host, port, name, level)
  }

  /** Answers when it is out; until then the caller asks again. */
  async removeMember({ member }: Params<'mds.remove'>): Promise<Result<'mds.remove'>> {
    const { formation } = this.#parts
    if (!formation.isGone(member)) await formation.remove(member)
    return { gone: formation.isGone(member) }
  }

  /** Ends the process after the answer has left. */
  shutdown(): Result<'admin.shutdown'> {
    this.#parts.master.after(SHUTDOWN_DELAY_MS, () => this.#parts.onShutdown())
    return {}
  }
}
