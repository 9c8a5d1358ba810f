/**
 * What should happen to one chunk next: keep it, wait, or a new epoch. Pure: the same situation and
 * randomness give the same plan; nothing here knows connections, time or commands. Rules J1, J3, J8, J10,
 * G2 and A3 decide; `apply` checks the result again when it is committed (metadata/chunks/epochs.ts).
 */
import type { Random } from '../platform/random.ts'
import { chooseServers, type Selection, type SelectionPolicy } from './selection.ts'
import { domainKeyOf, type PlacementServer } from './topology.ts'

export interface PlanMember {
  readonly server: number
  readonly role: 'in-sync' | 'joining'
}

export type Servers = Pick<ReadonlySet<number>, 'has'>

export interface ChunkSituation {
  /** Members of the last active epoch. */
  readonly members: readonly PlanMember[]
  /** Replicas that left but may still exist. */
  readonly former: readonly number[]
  readonly hasIntent: boolean
  readonly dirtyDead: boolean
  readonly writable: boolean
  readonly replicasNormal: number
  readonly replicasMinimum: number
  /** Joiners that started empty: they pull everything (rule J10). */
  readonly fresh: ReadonlySet<number>
  /** Members that must leave: 'exists' may re-join, 'lost' has nothing to compare with. */
  readonly failed: ReadonlyMap<number, 'exists' | 'lost'>
  /** Members that restarted uncleanly with this chunk on their open list (rule B1). */
  readonly unclean: Servers
  /** Of these: their disk went back in time, so that none of them is an authority (rule B3). */
  readonly rolledBack: Servers
  /** Members that a new master has not heard of yet, and that may register any moment. */
  readonly awaited: ReadonlySet<number>
  /** Servers that may not join this chunk yet (rule J6), or hold a condemned replica of it. */
  readonly barred: ReadonlySet<number>
  /** New copies may start: the cluster is not failed and the limits leave room. */
  readonly mayCopy: boolean
}

export type PlanReason =
  | 'reconcile'
  | 'member-failed'
  | 'unclean-restart'
  | 'server-inactive'
  | 'server-offline'
  | 're-join'
  | 'copy'
  | 'surplus'
  | 'writable'

export type WaitReason = 'awaited' | 'unreachable' | 'no-target' | 'copies-not-allowed' | 'returning'

export interface PlannedEpoch {
  readonly kind: 'change'
  readonly reason: PlanReason
  readonly members: readonly PlanMember[]
  readonly reconcile: boolean
  readonly leaving: readonly { server: number; exists: boolean }[]
  /** Joiners that have an old replica to compare with. */
  readonly rejoining: readonly number[]
  /** Joiners that start empty. */
  readonly copying: readonly number[]
  /** Fewer joiners than wanted: why. */
  readonly shortage: Selection['shortage']
}

export type Plan =
  | PlannedEpoch
  | { readonly kind: 'keep' }
  | { readonly kind: 'wait'; readonly reason: WaitReason; readonly shortage: Selection['shortage'] }

export type ServerLookup = (server: number) => PlacementServer | undefined

interface Context {
  readonly chunk: ChunkSituation
  readonly serverOf: ServerLookup
  readonly all: Iterable<PlacementServer>
  readonly policy: SelectionPolicy
  readonly random: Random
}

const keep: Plan = { kind: 'keep' }

export function planChunk(
  chunk: ChunkSituation,
  serverOf: ServerLookup,
  all: Iterable<PlacementServer>,
  policy: SelectionPolicy,
  random: Random,
): Plan {
  const context: Context = { chunk, serverOf, all, policy, random }
  // Rules F5, J3: what only they have is lost when the first one that is back goes on alone and then loses power.
  const isAwaited = ({ server }: PlanMember) => chunk.awaited.has(server) && !chunk.failed.has(server)
  if (chunk.members.some(isAwaited)) return { kind: 'wait', reason: 'awaited', shortage: '' }
  const inSync = chunk.members.filter((member) => member.role === 'in-sync').map((member) => member.server)
  if (chunk.dirtyDead) return planReconcile(context, inSync)
  const plan = planSettled(context, inSync, chunk.hasIntent)
  // A new epoch is persisted by every member: one that is silent would only hold it up.
  const isSilent = (server: number) => stateOf(context, server) === 'inactive'
  const hasSilent = plan.kind === 'change' && plan.members.some((member) => isSilent(member.server))
  return hasSilent ? planSettled(context, inSync, true) : plan
}

function planSettled(context: Context, inSync: readonly number[], dropsSilent: boolean): Plan {
  const stay = stayingInSync(context, inSync, dropsSilent)
  if (stay.kind === 'wait') return { kind: 'wait', reason: 'unreachable', shortage: '' }
  if (stay.kind === 'reconcile') return change(context, 'reconcile', stay.servers, [], [], '')
  return planJoiners(context, inSync, stay.servers)
}

function stateOf(context: Context, server: number): PlacementServer['state'] {
  return context.serverOf(server)?.state ?? 'dropped'
}

/** The writer died: equal members first. Uncrashed reachable ones at once; crashed ones only when no uncrashed may return (rule J3). */
function planReconcile(context: Context, inSync: readonly number[]): Plan {
  const { chunk } = context
  const usable = inSync.filter(
    (server) =>
      stateOf(context, server) === 'active' && !chunk.failed.has(server) && !chunk.rolledBack.has(server),
  )
  const clean = usable.filter((server) => !chunk.unclean.has(server))
  if (clean.length > 0) return change(context, 'reconcile', clean, [], [], '')
  const mayReturn = inSync.some((server) => stateOf(context, server) === 'inactive')
  if (usable.length === 0 || mayReturn) return { kind: 'wait', reason: 'unreachable', shortage: '' }
  return change(context, 'reconcile', usable, [], [], '')
}

type Staying =
  | { readonly kind: 'stay'; readonly servers: readonly number[] }
  | { readonly kind: 'reconcile'; readonly servers: readonly number[] }
  | { readonly kind: 'wait' }

/** In-sync members that stay. Never nothing (rule G2). */
function stayingInSync(context: Context, inSync: readonly number[], dropsSilent: boolean): Staying {
  const { chunk } = context
  const active = (server: number) => stateOf(context, server) === 'active'
  const good = inSync.filter((server) => !chunk.failed.has(server) && !chunk.unclean.has(server))
  const reachable = good.filter(active)
  const unclean = inSync.filter((server) => chunk.unclean.has(server) && !chunk.failed.has(server))
  if (reachable.length === 0) {
    // Also one that restarted uncleanly and went away again: it may be the one that has everything. And one that
    // failed because it fell silent: that says nothing about what it holds.
    const mayReturn = inSync.some(
      (server) => stateOf(context, server) === 'inactive' && chunk.failed.get(server) !== 'lost',
    )
    // Rule B3: a replica whose disk went back in time waits for another one, or for an administrator.
    const restarted = unclean.filter(active).filter((server) => !chunk.rolledBack.has(server))
    // Rule J3: only crashed members are here; an uncrashed one may still come back.
    if (restarted.length === 0 || mayReturn) return { kind: 'wait' }
    return { kind: 'reconcile', servers: restarted }
  }
  // A chunk with a writer cannot wait for a silent member; one without misses nothing meanwhile.
  const stay = good.filter((server) => {
    const state = stateOf(context, server)
    return state === 'active' || (state === 'inactive' && !dropsSilent)
  })
  return { kind: 'stay', servers: stay }
}

function planJoiners(context: Context, inSync: readonly number[], stay: readonly number[]): Plan {
  const { chunk } = context
  // Rules J4, E5: one that restarted joins again under a new version. Under this one its comparison could miss, or
  // take back, a write that it had answered and its source has yet to apply.
  const joining = chunk.members
    .filter(
      ({ role, server }) => role === 'joining' && !chunk.failed.has(server) && !chunk.unclean.has(server),
    )
    .map((member) => member.server)
    .filter((server) => stateOf(context, server) === 'active' && !isFailing(context, server))
  // Rule R1: a failing disk keeps its replica, which is a good source, until there are enough without it.
  const sound = stay.filter((server) => !isFailing(context, server))
  const wanted = chunk.replicasNormal - sound.length - joining.length
  const rejoining =
    wanted > 0
      ? rejoinersOf(context, [...stay, ...joining], wanted)
      : rivalsOf(context, stay, joining, chunk.replicasNormal - sound.length)
  const copies = wanted > 0 ? copiesOf(context, stay, sound, joining, rejoining, wanted) : noCopies
  const copying = copies.chosen.map((server) => server.server)
  const surplus = [
    ...(wanted < 0 ? surplusOf(context, sound, joining) : []),
    ...relievedOf(context, stay, sound),
  ]
  const kept = stay.filter((server) => !surplus.includes(server))
  const keptJoining = joining.filter((server) => !surplus.includes(server))
  const left = chunk.members.length - kept.length - keptJoining.length
  if (left > 0 || rejoining.length > 0 || copying.length > 0) {
    const reason = reasonOf(context, inSync, stay, rejoining, copying, surplus)
    return change(
      context,
      reason,
      [...kept],
      [...keptJoining, ...rejoining],
      copying,
      copies.shortage,
      rejoining,
    )
  }
  // Rule A4: crossing `min`, here by a change of attributes, is an epoch change.
  if (chunk.writable !== stay.length >= chunk.replicasMinimum) {
    return change(context, 'writable', [...stay], joining, [], '')
  }
  if (wanted <= 0) return keep
  return { kind: 'wait', reason: copies.reason, shortage: copies.shortage }
}

/** Former replicas whose server is back, in preference to new places; only what changed travels. */
function rejoinersOf(context: Context, present: readonly number[], wanted: number): number[] {
  const { chunk, serverOf, policy } = context
  const keys = new Set(present.map((server) => keyOf(context, server)))
  const chosen: number[] = []
  const leavingNow = chunk.members.filter((member) => chunk.unclean.has(member.server)).map((m) => m.server)
  for (const server of [...chunk.former, ...leavingNow].toSorted((a, b) => a - b)) {
    const found = serverOf(server)
    if (chosen.length === wanted) break
    if (found === undefined || found.state !== 'active' || !found.accepts) continue
    if (present.includes(server) || chunk.barred.has(server) || chunk.failed.has(server)) continue
    const key = domainKeyOf(found, policy.failureDomain)
    if (keys.has(key)) continue
    keys.add(key)
    chosen.push(server)
  }
  return chosen
}

/**
 * Rule J10: a replica that returns joins beside one that is still being copied. Whichever has less to pull is in
 * sync first, and stays; the other is surplus then.
 */
function rivalsOf(
  context: Context,
  stay: readonly number[],
  joining: readonly number[],
  needed: number,
): number[] {
  const { fresh } = context.chunk
  if (needed <= 0) return []
  const rejoining = joining.filter((server) => !fresh.has(server))
  const racing = Math.max(0, joining.length - needed)
  const count = joining.length - rejoining.length - racing
  return count > 0 ? rejoinersOf(context, [...stay, ...rejoining], count) : []
}

function keyOf(context: Context, server: number): string {
  const found = context.serverOf(server)
  return found === undefined ? `gone ${server}` : domainKeyOf(found, context.policy.failureDomain)
}

interface Copies {
  readonly chosen: Selection['chosen']
  readonly shortage: Selection['shortage']
  readonly reason: WaitReason
}
const noCopies: Copies = { chosen: [], shortage: '', reason: 'no-target' }

function copiesOf(
  context: Context,
  stay: readonly number[],
  sound: readonly number[],
  joining: readonly number[],
  rejoining: readonly number[],
  wanted: number,
): Copies {
  const { chunk } = context
  const present = [...sound, ...joining, ...rejoining]
  // A silent server gets its time to return, unless writers are held meanwhile.
  const isHeld = stay.length < chunk.replicasMinimum
  const silent = [...chunk.former, ...chunk.members.map((member) => member.server)].filter(
    (server) => !present.includes(server) && stateOf(context, server) === 'inactive',
  )
  const returning = isHeld ? 0 : new Set(silent).size
  const missing = wanted - rejoining.length - returning
  if (missing <= 0) return { ...noCopies, reason: returning > 0 ? 'returning' : 'no-target' }
  if (!chunk.mayCopy) return { ...noCopies, reason: 'copies-not-allowed' }
  const lookup = (server: number) => context.serverOf(server) ?? []
  const occupied = present.flatMap(lookup)
  const former = new Set(chunk.former)
  const candidates = [...context.all].filter(
    ({ server }) => !chunk.barred.has(server) && !chunk.failed.has(server) && !former.has(server),
  )
  const selection = chooseServers(missing, candidates, occupied, context.policy, context.random)
  return { chosen: selection.chosen, shortage: selection.shortage, reason: 'no-target' }
}

/** Members on failing disks: they leave when there are enough others (rules R1, J8). */
function relievedOf(context: Context, stay: readonly number[], sound: readonly number[]): number[] {
  const { chunk } = context
  const active = sound.filter((server) => stateOf(context, server) === 'active')
  if (chunk.hasIntent || active.length < chunk.replicasNormal) return []
  return stay.filter((server) => !sound.includes(server))
}

function isFailing(context: Context, server: number): boolean {
  return context.serverOf(server)?.isFailing === true
}

/** Too many: silent ones first, then those that share a failure domain, then the fullest (rule J8: norm stays). */
function surplusOf(context: Context, stay: readonly number[], joining: readonly number[]): number[] {
  const { chunk } = context
  const inSyncActive = stay.filter((server) => stateOf(context, server) === 'active')
  // A joiner that is no longer needed goes first, also from writers, who send to it in vain (rule J10).
  const needed = Math.max(0, chunk.replicasNormal - stay.length)
  const rejoining = joining.filter((server) => !chunk.fresh.has(server))
  const fresh = joining.filter((server) => chunk.fresh.has(server))
  const racing = needed === 0 ? 0 : Math.min(rejoining.length, fresh.length)
  const surplusJoining = [...rejoining, ...fresh].slice(needed + racing)
  if (chunk.hasIntent) return surplusJoining
  const over = stay.length - chunk.replicasNormal
  if (over <= 0 || inSyncActive.length < chunk.replicasNormal) return surplusJoining
  const keys = stay.map((server) => keyOf(context, server))
  const score = (server: number): number => {
    const found = context.serverOf(server)
    const isSilent = found?.state === 'active' ? 0 : 4
    const isDoubled = keys.filter((key) => key === keyOf(context, server)).length > 1 ? 2 : 0
    const fill = found === undefined ? 1 : 1 - found.freeBytes / Math.max(1, found.totalBytes)
    return isSilent + isDoubled + fill
  }
  const order = stay.toSorted((a, b) => score(b) - score(a) || b - a)
  return [...surplusJoining, ...order.slice(0, over)]
}

function reasonOf(
  context: Context,
  inSync: readonly number[],
  stay: readonly number[],
  rejoining: readonly number[],
  copying: readonly number[],
  surplus: readonly number[],
): PlanReason {
  const { chunk } = context
  const leaving = chunk.members.map((member) => member.server).filter((server) => !stay.includes(server))
  if (leaving.some((server) => chunk.failed.has(server))) return 'member-failed'
  if (leaving.some((server) => chunk.unclean.has(server))) return 'unclean-restart'
  const lost = inSync.filter((server) => !stay.includes(server))
  if (lost.some((server) => stateOf(context, server) === 'inactive')) return 'server-inactive'
  if (lost.length > 0) return 'server-offline'
  if (rejoining.length > 0) return 're-join'
  if (copying.length > 0) return 'copy'
  return surplus.length > 0 ? 'surplus' : 'server-inactive'
}

function change(
  context: Context,
  reason: PlanReason,
  inSync: readonly number[],
  joining: readonly number[],
  copying: readonly number[],
  shortage: Selection['shortage'],
  rejoining: readonly number[] = [],
): PlannedEpoch {
  const { chunk } = context
  const members: PlanMember[] = [
    ...inSync.map((server) => ({ server, role: 'in-sync' as const })),
    ...[...joining, ...copying].map((server) => ({ server, role: 'joining' as const })),
  ]
  const staying = new Set(members.map((member) => member.server))
  const leaving = chunk.members
    .filter((member) => !staying.has(member.server))
    .map(({ server }) => ({ server, exists: chunk.failed.get(server) !== 'lost' }))
  return {
    kind: 'change',
    reason,
    members,
    reconcile: reason === 'reconcile',
    leaving,
    rejoining,
    copying,
    shortage,
  }
}
