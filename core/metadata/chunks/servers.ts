/** The registry of chunk servers: identity, registration numbers (rule B3), committed states. */
import { generationOf, isInRecovery } from './administration.ts'
import { MARKS_LEVEL } from '../state/feature-levels.ts'
import { refused } from '../state/result.ts'
import type { ServerRow } from '../state/rows.ts'
import type { ChunkHandlers, ChunkState } from './handlers.ts'

/** The guide numbers chunk servers from 1025. */
export const SERVER_ID_FIRST = 1025
export const SERVER_COUNT_MAX = 10_000
/** Many more than are written within the second or two that it takes to settle them. */
export const UNSETTLED_COUNT_MAX = 100_000

export const serverHandlers: ChunkHandlers<'server.register' | 'server.state' | 'server.marks'> = {
  'server.register'({ state }, command) {
    const { type: _type, marksHeard = 0, ...facts } = command
    const existing =
      command.server === 0 ? findStore(state, command.storeUuid) : state.servers.get(command.server)
    if (existing === undefined) {
      const isForgotten = command.server !== 0 && isInRecovery(state)
      if (command.server !== 0 && !isForgotten)
        return refused('NOT_FOUND', `CS#${command.server} is not known in this cluster`)
      if (state.servers.size >= SERVER_COUNT_MAX) return refused('OVERLOADED', 'too many chunk servers')
      // It came after the copy that the metadata were made of: its id stays.
      const server = isForgotten ? rememberServerId(state, command.server) : takeServerId(state)
      const registration = isForgotten ? Math.max(command.registration, generationOf(state)) + 1 : 1
      state.servers.set(server, {
        ...facts,
        server,
        registration,
        registrationConfirmed: 0,
        state: 'inactive',
      })
      return { ok: { server, registration, restarted: false, rolledBack: false } }
    }
    if (existing.storeUuid !== command.storeUuid) {
      return refused(
        'REFUSED',
        `CS#${existing.server} has another store: this one is a copy under its number`,
      )
    }
    if (existing.state === 'dropped') return refused('REFUSED', `CS#${existing.server} was removed`)
    // Rule B3: an older number than one it had confirmed is a copy, or a disk that went back in time.
    if (
      command.registration < existing.registrationConfirmed ||
      (command.registration > existing.registration && !isInRecovery(state))
    ) {
      return refused(
        'REFUSED',
        `CS#${existing.server} presents registration ${command.registration}, but confirmed ` +
          `${existing.registrationConfirmed} of ${existing.registration}: its store is a copy or was restored ` +
          'from an old one, or these metadata servers were replaced by others',
      )
    }
    const { server, incarnation, registrationConfirmed, marks: marksKnown = 0 } = existing
    const isConfirmed = registrationConfirmed === existing.registration
    const registration = Math.max(existing.registration, command.registration) + 1
    const least = Math.max(marksKnown, marksHeard)
    // Rule B3: it had more marks: the disk went back to a moment after the registration. One that does not count them
    // (of an older version) starts from nothing when it does.
    const rolledBack = command.marks !== undefined && command.marks < least
    const { marks: _marks, ...known } = existing
    const marks = command.marks === undefined ? {} : { marks: Math.max(command.marks, least) }
    state.servers.set(server, { ...known, ...facts, ...marks, server, registration })
    const restarted = !isConfirmed || incarnation !== command.incarnation
    return { ok: { server, registration, restarted, rolledBack } }
  },

  'server.state'({ state }, { server, state: next, marks }) {
    const row = state.servers.get(server)
    if (row === undefined || row.state === 'dropped') return { ok: { changed: false } }
    const changed = row.state !== next
    // It reports only after it has stored its number durably.
    const registrationConfirmed = next === 'active' ? row.registration : row.registrationConfirmed
    state.servers.set(server, {
      ...row,
      state: next,
      registrationConfirmed,
      ...(marks === undefined ? {} : { marks }),
    })
    return { ok: { changed } }
  },

  'server.marks'({ state }, { marks, through, chunks }) {
    for (const told of marks) {
      const row = state.servers.get(told.server)
      // Another process says itself, when it registers, what it has.
      if (row === undefined || row.incarnation !== told.incarnation || told.marks <= (row.marks ?? 0))
        continue
      state.servers.set(told.server, { ...row, marks: told.marks })
    }
    const settled: number[] = []
    for (const chunk of chunks) {
      const unsettled = state.unsettled.get(chunk)
      // Rule E6: it was written and given back once more meanwhile.
      if (unsettled === undefined || unsettled.index > through) continue
      state.unsettled.delete(chunk)
      settled.push(chunk)
    }
    return { ok: { settled } }
  },
}

/**
 * An intent was given back. Until the marks of the members are known that cover what was written under it, it is
 * remembered that it may have been written (rule B3): a member that restarts and does not say so went back in time.
 */
export function unsettle(state: ChunkState, chunk: number, index: number): void {
  if (state.level.inForce < MARKS_LEVEL || state.unsettled.size >= UNSETTLED_COUNT_MAX) return
  state.unsettled.set(chunk, { index })
}

/** A store that lost the answer to its first registration asks again without a number. */
function findStore(state: ChunkState, storeUuid: string): ServerRow | undefined {
  for (const row of state.servers.values()) {
    if (row.storeUuid === storeUuid && row.state !== 'dropped') return row
  }
  return undefined
}

function rememberServerId(state: ChunkState, server: number): number {
  if (state.counters.get('nextServer') <= server) state.counters.raiseTo('nextServer', server + 1)
  return server
}

function takeServerId(state: ChunkState): number {
  if (state.counters.get('nextServer') < SERVER_ID_FIRST)
    state.counters.raiseTo('nextServer', SERVER_ID_FIRST)
  return state.counters.take('nextServer')
}
