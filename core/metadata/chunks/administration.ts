/** Events, log time and parameters. */
import { ROOT_INODE } from '../../wire/messages/common.ts'
import { defaultPlacement, withMinimum } from '../namespace/placement.ts'
import { internPlacement } from '../state/inode-codec.ts'
import { refused } from '../state/result.ts'
import type { ChunkHandlers, ChunkState } from './handlers.ts'
import { isParameter, parseParameter } from './parameters.ts'

/** Kept beside the parameters; no parameter has such a name. */
export const CLUSTER_NAME_KEY = 'cluster.name'
export const CLUSTER_UUID_KEY = 'cluster.uuid'
/** Verifier and keys, sealed (docs/formats/authentication.md), and how often they were changed. */
export const AUTHENTICATION_KEY = 'cluster.authentication'
export const AUTHENTICATION_REVISION_KEY = 'cluster.authentication.revision'

/** Rises whenever the metadata begin anew (chunks/renewal.ts): members, clients and servers refuse an older one. */
export const GENERATION_KEY = 'cluster.generation'
/** While it is there the metadata may be behind the chunk servers: nothing is served or decided (rule G1). */
export const RECOVERY_KEY = 'cluster.recovery'
/** Replicas of unknown chunks with lower ids are kept (rule G1). */
export const UNKNOWN_KEPT_KEY = 'cluster.unknownKept'
/** What was reported that these metadata cannot have given out: nothing is deleted while it is there (rule G1). */
export const ALARM_KEY = 'cluster.alarm'
/** No epoch begins with a lower version. */
export const VERSION_FLOOR_KEY = 'cluster.versionFloor'

/** 0: no cluster yet, or one that never began anew. */
export function generationOf(state: Pick<ChunkState, 'config'>): number {
  return Number(state.config.get(GENERATION_KEY) ?? 0)
}

export function isInRecovery(state: Pick<ChunkState, 'config'>): boolean {
  return state.config.has(RECOVERY_KEY)
}

export function isAlarmed(state: Pick<ChunkState, 'config'>): boolean {
  return state.config.has(ALARM_KEY)
}

/** Rule G1: is it a replica that somebody we do not remember may have made? */
export function isKeptUnknown(state: Pick<ChunkState, 'config'>, chunk: number): boolean {
  return chunk < Number(state.config.get(UNKNOWN_KEPT_KEY) ?? 0)
}

/** The version of the next epoch: above what anybody may hold from before a renewal. */
export function nextVersion(state: Pick<ChunkState, 'config'>, committed: number): number {
  return Math.max(committed + 1, Number(state.config.get(VERSION_FLOOR_KEY) ?? 0))
}

/** Rule L11: one tick never advances log time further, whatever the master's clock did. */
export const TICK_MS_MAX = 10_000

export const administrationHandlers: ChunkHandlers<
  'cluster.create' | 'level.raise' | 'event.record' | 'tick' | 'admin.setConfig' | 'authentication.set'
> = {
  'cluster.create'(context, { name, uuid, placement, level }) {
    const { state } = context
    if (state.config.has(CLUSTER_UUID_KEY)) return refused('REFUSED', 'the cluster exists already')
    state.config.set(CLUSTER_NAME_KEY, name)
    state.config.set(CLUSTER_UUID_KEY, uuid)
    if (level !== undefined && level > state.level.inForce) state.level.raiseTo(level)
    const root = state.inodes.get(ROOT_INODE)
    if (root !== undefined) {
      root.placement = internPlacement({ ...defaultPlacement, ...withMinimum(placement) })
      Object.assign(root, {
        accessSeconds: context.wallSeconds,
        accessNanoseconds: context.wallNanoseconds,
        modifySeconds: context.wallSeconds,
        modifyNanoseconds: context.wallNanoseconds,
        changeSeconds: context.wallSeconds,
        changeNanoseconds: context.wallNanoseconds,
      })
      state.inodes.touch(ROOT_INODE)
    }
    return { ok: {} }
  },

  'level.raise'({ state }, { level }) {
    if (level > state.level.inForce) state.level.raiseTo(level)
    return { ok: {} }
  },

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
    const parsed = parseParameter(key, value, state.level.inForce)
    if ('error' in parsed)
      return refused(isParameter(key, state.level.inForce) ? 'EINVAL' : 'NOT_FOUND', parsed.error)
    state.config.set(key, parsed.value)
    return { ok: {} }
  },

  'authentication.set'({ state }, { revision, value }) {
    const known = Number(state.config.get(AUTHENTICATION_REVISION_KEY) ?? 0)
    if (revision !== known + 1) return refused('REFUSED', 'password or key were changed at the same time')
    state.config.set(AUTHENTICATION_REVISION_KEY, revision)
    state.config.set(AUTHENTICATION_KEY, value)
    return { ok: {} }
  },
}
