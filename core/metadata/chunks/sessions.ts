/** Sessions of clients. Expiry is one command that ends everything a session held (rules L1, J5). */
import { present } from '../../base/assert.ts'
import { refused } from '../state/result.ts'
import type { ChunkContext, ChunkHandlers } from './handlers.ts'
import { raiseGeneration } from './sharing.ts'

/** Clients, exports and short-lived commands together. */
export const SESSION_COUNT_MAX = 10_000

export const sessionHandlers: ChunkHandlers<'session.open' | 'session.expire'> = {
  'session.open'({ state }, { name, host, kind, secret }) {
    if (state.sessions.size >= SESSION_COUNT_MAX) return refused('OVERLOADED', 'too many sessions')
    const session = state.counters.take('nextSession')
    const openedAtTickMs = state.counters.get('logTimeMs')
    state.sessions.set(session, { session, secret, name, host, kind, openedAtTickMs })
    return { ok: { session } }
  },

  'session.expire'(context, { session }) {
    const { state } = context
    if (!state.sessions.has(session)) return { ok: { dirty: [] } }
    const dirty: number[] = []
    const leases = [...(state.leasesBySession.get(session) ?? [])].toSorted((a, b) => a - b)
    for (const lease of leases) dirty.push(...endLease(context, lease))
    state.keyValue.endSession(session, context.index)
    state.sessions.delete(session)
    state.replies.dropSession(session)
    return { ok: { dirty } }
  },
}

/**
 * Ends a lease. What it still held an intent for is dirty by a dead lease until it is reconciled (rule J5):
 * a clean end has given all intents back before. Answers with those chunks.
 */
export function endLease(context: ChunkContext, lease: number): number[] {
  const { state } = context
  const row = state.leases.get(lease)
  if (row === undefined) return []
  const dirty = state.chunks.chunksWithIntent(lease)
  for (const chunk of dirty) {
    const chunkRow = present(state.chunks.get(chunk), 'an intent names a chunk')
    state.chunks.put({ ...chunkRow, intentLease: 0, dirtyDead: true })
  }
  raiseGeneration(state, row.inode)
  state.leases.delete(lease)
  return dirty
}
