/** Events, log time and parameters. */
import { refused } from '../state/result.ts'
import type { ChunkHandlers } from './handlers.ts'
import { parseParameter } from './parameters.ts'

/** Rule L11: one tick never advances log time further, whatever the master's clock did. */
export const TICK_MS_MAX = 10_000

export const administrationHandlers: ChunkHandlers<'event.record' | 'tick' | 'admin.setConfig'> = {
  'event.record'(context, { system, severity, code, message }) {
    const timeMs = context.wallSeconds * 1000 + Math.floor(context.wallNanoseconds / 1e6)
    const { id } = context.state.recordEvent({ timeMs, system, severity, code, message })
    return { ok: { id } }
  },

  tick({ state }, { elapsedMs }) {
    const bounded = Math.min(TICK_MS_MAX, Math.max(0, Math.floor(elapsedMs)))
    state.counters.raiseTo('logTimeMs', state.counters.get('logTimeMs') + bounded)
    return { ok: {} }
  },

  'admin.setConfig'({ state }, { key, value }) {
    const parsed = parseParameter(key, value)
    if ('error' in parsed) return refused('EINVAL', parsed.error)
    state.config.set(key, parsed.value)
    return { ok: {} }
  },
}
