/**
 * Metadata that begin anew, from a copy or from one survivor of a lost majority: they may be older than what the
 * chunk servers hold and what clients were told. So that nothing is used twice and nothing old is taken for new:
 *
 *     numbers that are handed out (inodes, chunks, sessions, leases, registrations, terms) go on at `base`,
 *       above all that were ever handed out, also after an earlier renewal from the same copy
 *     chunk servers register above the numbers of the quorum that was replaced, which then refuses them (rule B3)
 *     metadata servers of the former quorum are `replaced`; the one that is left has an id of its own
 *     until an administrator ends the recovery nothing is served, repaired or deleted (rule G1)
 *
 * `renewState` is applied to a state that nobody else uses; the handlers end the recovery (adoption of what the
 * chunk servers reported), command by command, in the log of the new quorum.
 */
import { refused } from '../state/result.ts'
import type { ChunkRow } from '../state/rows.ts'
import {
  ALARM_KEY,
  GENERATION_KEY,
  generationOf,
  isInRecovery,
  RECOVERY_KEY,
  UNKNOWN_KEPT_KEY,
  VERSION_FLOOR_KEY,
} from './administration.ts'
import { FORMER_COUNT_MAX } from './chunk-table.ts'
import type { ChunkHandlers, ChunkState } from './handlers.ts'
import { committedVersion } from './condemning.ts'
import { SERVER_ID_FIRST } from './servers.ts'
import { putWithOverlays } from './sharing.ts'

/** More than a cluster hands out on average, so that a later renewal from the same copy begins above an earlier one. */
const NUMBERS_PER_SECOND = 65_536
/** When the clock is behind. */
const STEP_MIN = 2 ** 40
/** Ids of chunk servers fit 32 bits. */
const SERVER_STEP = 1_000
/** Versions fit 32 bits. */
const VERSION_STEP = 2 ** 20
const VERSION_FLOOR_MAX = 2 ** 31

export interface Renewal {
  readonly base: number
  readonly member: number
  readonly host: string
  readonly port: number
  readonly name: string
  readonly timeMs: number
  /** What happened, for the event log. */
  readonly message: string
}

/** Where everything goes on. */
export function renewalBase(state: ChunkState, wallSeconds: number, lastIndex: number, term: number): number {
  let highest = Math.max(lastIndex, term, generationOf(state))
  for (const name of ['nextInode', 'nextChunk', 'nextSession'] as const)
    highest = Math.max(highest, state.counters.get(name))
  for (const { registration } of state.servers.values()) highest = Math.max(highest, registration)
  return Math.max(Math.floor(wallSeconds) * NUMBERS_PER_SECOND, highest + STEP_MIN)
}

/** Sessions have ended before. */
export function renewState(state: ChunkState, renewal: Renewal): void {
  const { base, member, host, port, name, timeMs, message } = renewal
  for (const row of state.members.values())
    if (row.state !== 'removed') state.members.set(row.member, { ...row, state: 'replaced' })
  state.members.set(member, { member, host, port, name, state: 'member' })
  for (const counter of ['nextInode', 'nextChunk', 'nextSession'] as const)
    state.counters.raiseTo(counter, Math.max(base, state.counters.get(counter)))
  state.counters.raiseTo(
    'nextServer',
    Math.max(SERVER_ID_FIRST, state.counters.get('nextServer')) + SERVER_STEP,
  )
  for (const row of state.servers.values()) {
    const isGone = row.state === 'dropped'
    state.servers.set(row.server, { ...row, registration: base, state: isGone ? 'dropped' : 'inactive' })
  }
  state.config.set(GENERATION_KEY, base)
  state.config.set(RECOVERY_KEY, base)
  state.config.set(UNKNOWN_KEPT_KEY, base)
  state.recordEvent({ timeMs, system: 'MDS', severity: 'err', code: 'METADATA_RENEWED', message })
}

/** The id of the one member of the new quorum: nobody had it, as far as is known here. */
export function nextMember(state: ChunkState, known: number): number {
  return Math.max(known, ...state.members.keys()) + 1
}

export const renewalHandlers: ChunkHandlers<'chunk.adopt' | 'recovery.end' | 'recovery.discard'> = {
  'chunk.adopt'({ state }, { chunks }) {
    if (!isInRecovery(state)) return refused('REFUSED', 'the cluster is not being recovered')
    for (const { chunk, version, servers } of chunks) {
      const row = state.chunks.get(chunk)
      if (row !== undefined) adopt(state, row, version, servers)
    }
    return { ok: {} }
  },

  'recovery.end'({ state }, { versionMax }) {
    if (!isInRecovery(state)) return refused('REFUSED', 'the cluster is not being recovered')
    const floor = Math.max(versionMax, Number(state.config.get(VERSION_FLOOR_KEY) ?? 0)) + VERSION_STEP
    // The last resort of a cluster that was renewed two thousand times.
    state.config.set(VERSION_FLOOR_KEY, Math.min(floor, Math.max(VERSION_FLOOR_MAX, versionMax + 1)))
    state.config.delete(RECOVERY_KEY)
    state.config.delete(ALARM_KEY)
    return { ok: {} }
  },

  'recovery.discard'({ state }) {
    if (isInRecovery(state)) return refused('REFUSED', 'the cluster is being recovered')
    state.config.delete(UNKNOWN_KEPT_KEY)
    return { ok: {} }
  },
}

/**
 * The replicas that the chunk servers have, instead of what the metadata remember. Nobody knows what was being
 * written: they are made equal before anybody may use them (rules J1, J5), the newest stamp of each page wins.
 * With nobody reported the row stays as it is: its holders may come back.
 */
function adopt(state: ChunkState, row: ChunkRow, version: number, servers: readonly number[]): void {
  const known = servers.filter((server) => state.servers.has(server))
  if (known.length === 0 || version < row.version) {
    state.chunks.put({ ...row, dirtyDead: row.inode !== 0, intentLease: 0 })
    return
  }
  for (const server of known) state.condemned.delete(row.chunk, server)
  const others = [...row.members, ...(row.pending?.members ?? []), ...row.former]
    .map(({ server }) => server)
    .filter((server) => !known.includes(server))
  const versionMax = Math.max(version, committedVersion(row))
  const adopted: ChunkRow = {
    ...row,
    version,
    members: known.map((server) => ({ server, role: 'in-sync', since: version, attempt: 0 })),
    // Set when the members are equal.
    writable: false,
    pending: null,
    intentLease: 0,
    // What nobody holds is not repaired.
    dirtyDead: row.inode !== 0,
    former: [...new Set(others)]
      .toSorted((a, b) => a - b)
      .slice(0, FORMER_COUNT_MAX)
      .map((server) => ({ server, version: versionMax })),
  }
  const overlays = (row.overlays ?? []).filter(({ server }) => known.includes(server))
  putWithOverlays(state, adopted, overlays)
}
