/**
 * The alarm of rule G1: a chunk server reported what these metadata never gave out, so it is they that have lost
 * state. It is part of the state: whoever is the master next, nothing is condemned or deleted until an administrator
 * has acknowledged it. Chunk ids go on above what was reported and above all that were reserved, so that none is given
 * to two chunks; unknown ones below are kept also afterwards, until `recovery.discard`, whatever raised the alarm: also
 * those that were condemned as unknown before anybody knew better.
 */
import { refused } from '../state/result.ts'
import { ALARM_KEY, isAlarmed, isInRecovery, isKeptUnknown, UNKNOWN_KEPT_KEY } from './administration.ts'
import type { ChunkHandlers, ChunkState } from './handlers.ts'

/** A report beyond it is nonsense: going on above would use the ids up. */
const CHUNK_ID_MAX = 2 ** 52

/** Of a file that was deleted they are reported again, as unknown, and kept like the others: that costs only space. */
function pardonUnknown(state: ChunkState): void {
  const { condemned, chunks } = state
  condemned.scan(0, Number.MAX_SAFE_INTEGER, (chunk, server) => {
    if (!chunks.has(chunk)) condemned.delete(chunk, server)
  })
}

export const alarmHandlers: ChunkHandlers<'recovery.alarm' | 'recovery.acknowledge'> = {
  'recovery.alarm'({ state }, { server, chunk, version }) {
    // Then nothing is decided anyway, and what is reported becomes the state.
    if (isInRecovery(state)) return { ok: { isNew: false } }
    const isNew = !isAlarmed(state)
    if (isNew) state.config.set(ALARM_KEY, `CS#${server} has chunk ${chunk} at version ${version}`)
    const nextChunk = state.counters.get('nextChunk')
    if (chunk >= nextChunk && chunk < CHUNK_ID_MAX) state.counters.raiseTo('nextChunk', chunk + 1)
    const kept = state.counters.get('nextChunk')
    if (!isKeptUnknown(state, kept - 1)) state.config.set(UNKNOWN_KEPT_KEY, kept)
    if (isNew) pardonUnknown(state)
    return { ok: { isNew } }
  },

  'recovery.acknowledge'({ state }) {
    if (!isAlarmed(state)) return refused('REFUSED', 'there is no alarm')
    state.config.delete(ALARM_KEY)
    return { ok: {} }
  },
}
