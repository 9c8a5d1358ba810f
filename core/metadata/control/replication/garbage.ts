/**
 * Ends replicas (rules G1, G2): stale ones of chunks that have been complete for a grace are condemned by a
 * command; condemned ones are deleted by version after their grace, and confirmed by a command. Graces start
 * afresh with every master (rule L11). An alarm, a replica the quorum cannot have given out, stops all of it
 * until the operator has looked (chunks/alarm.ts).
 */
import { isAlarmed } from '../../chunks/administration.ts'
import { effectivePlacement } from '../../namespace/placement.ts'
import type { CondemnedRow } from '../../state/rows.ts'
import { condemnedKey } from '../../state/state.ts'
import type { DamagedReplicas } from './damaged-replicas.ts'
import type { EventRecorder } from '../servers/event-recorder.ts'
import type { Master } from '../servers/master.ts'
import type { MissingPages } from './missing-pages.ts'
import type { ServerOrders } from '../servers/server-orders.ts'
import type { ServersView } from '../servers/servers-view.ts'

const TICK_MS = 250
const CONDEMNED_PER_TICK_MAX = 2_000
const FORMER_PER_TICK_MAX = 1_000
const DELETES_IN_FLIGHT_MAX = 4_096
const CONFIRM_BATCH_COUNT_MAX = 1_024
/** A server that refused (it has something newer) is asked again this much later. */
const REFUSED_PAUSE_MS = 60_000

export interface GarbageParts {
  readonly master: Master
  readonly orders: ServerOrders
  readonly view: ServersView
  readonly events: EventRecorder
  readonly damaged: DamagedReplicas
  readonly missingPages: MissingPages
  /** All servers have reported, or had their time. */
  readonly isInformed: () => boolean
}

export class Garbage {
  readonly #parts: GarbageParts
  /** When a condemned replica may be deleted. */
  readonly #dueMs = new Map<string, number>()
  readonly #inFlight = new Set<string>()
  readonly #completeSinceMs = new Map<number, number>()
  #condemned: Iterator<CondemnedRow> | null = null
  #former: Iterator<number> | null = null
  #confirmed: { chunk: number; server: number }[] = []
  /** Before the alarm is in the log, and where not all members understand it yet. */
  #isAlarmed = false
  /** Said to the log at the end of this turn. */
  #alarm: { server: number; chunk: number; version: number } | null = null

  constructor(parts: GarbageParts) {
    this.#parts = parts
    parts.master.every(TICK_MS, () => this.#tick())
  }

  get isStopped(): boolean {
    return this.#isAlarmed || isAlarmed(this.#parts.master.state)
  }

  /** Rule G1: we, not they, have lost state. */
  alarm(server: number, chunk: number, version: number): void {
    this.#isAlarmed = true
    const message =
      `CS#${server} reports chunk ${chunk} version ${version}, which these metadata never gave out: ` +
      'the metadata went back in time; deletion of replicas is stopped, see: cairn mds recover --dry-run'
    this.#parts.events.record('MDS', 'err', 'METADATA_BEHIND', message, 'alarm')
    // A report may be full of them: the highest id stands for all.
    if (this.#alarm === null) this.#parts.master.defer(() => this.#tellAlarm())
    if (chunk >= (this.#alarm?.chunk ?? 0)) this.#alarm = { server, chunk, version }
  }

  #tellAlarm(): void {
    const { master } = this.#parts
    const alarm = this.#alarm
    this.#alarm = null
    const isNews = !isAlarmed(master.state) || (alarm?.chunk ?? 0) >= master.state.counters.get('nextChunk')
    if (alarm !== null && isNews) master.submit({ type: 'recovery.alarm', ...alarm })
  }

  #tick(): void {
    if (this.isStopped || this.#parts.master.isInRecovery || !this.#parts.isInformed()) return
    this.#deleteDue()
    this.#condemnStale()
  }

  #deleteDue(): void {
    const { master, view, orders } = this.#parts
    const nowMs = master.clock.nowMs()
    const graceMs = master.parameter('mds.gc.grace')
    this.#condemned ??= master.state.condemned.values()
    for (let count = 0; count < CONDEMNED_PER_TICK_MAX; count++) {
      const next = this.#condemned.next()
      if (next.done === true) {
        this.#condemned = null
        return
      }
      const { chunk, server, versionMax } = next.value
      const key = condemnedKey(chunk, server)
      const dueMs = this.#dueMs.get(key)
      if (dueMs === undefined) this.#dueMs.set(key, nowMs + graceMs)
      const isDue = dueMs === undefined ? graceMs === 0 : nowMs >= dueMs
      const mayAsk = view.isReachable(server) && this.#inFlight.size < DELETES_IN_FLIGHT_MAX
      if (!isDue || !mayAsk || this.#inFlight.has(key)) continue
      this.#inFlight.add(key)
      orders.delete(server, { chunk, versionMax }, (code) => this.#answered(chunk, server, code))
    }
  }

  #answered(chunk: number, server: number, code: string): void {
    const key = condemnedKey(chunk, server)
    this.#inFlight.delete(key)
    if (code === '' || code === 'NO_REPLICA') {
      this.#dueMs.delete(key)
      this.#parts.damaged.delete(chunk, server)
      if (this.#confirmed.length === 0) this.#parts.master.defer(() => this.#confirm())
      this.#confirmed.push({ chunk, server })
    } else if (code === 'REFUSED') {
      this.#dueMs.set(key, this.#parts.master.clock.nowMs() + REFUSED_PAUSE_MS)
    }
  }

  #confirm(): void {
    const replicas = this.#confirmed.splice(0, CONFIRM_BATCH_COUNT_MAX)
    if (this.#confirmed.length > 0) this.#parts.master.defer(() => this.#confirm())
    this.#parts.master.submit({ type: 'replica.deleted', replicas })
  }

  /** Rule G2: only while the chunk has had its normal number of in-sync members for the whole grace. */
  #condemnStale(): void {
    const { master } = this.#parts
    const { chunks } = master.state
    const nowMs = master.clock.nowMs()
    const graceMs = master.parameter('mds.gc.stale_grace')
    const replicas: (CondemnedRow & { damaged: boolean })[] = []
    this.#former ??= chunks.formerChunks()
    for (let count = 0; count < FORMER_PER_TICK_MAX; count++) {
      const next = this.#former.next()
      if (next.done === true) {
        this.#former = null
        this.#forgetEnded()
        break
      }
      const chunk = next.value
      this.#addDamaged(chunk, replicas)
      if (!this.#isComplete(chunk)) {
        this.#completeSinceMs.delete(chunk)
        continue
      }
      const sinceMs = this.#completeSinceMs.get(chunk)
      if (sinceMs === undefined) this.#completeSinceMs.set(chunk, nowMs)
      if (nowMs - (sinceMs ?? nowMs) < graceMs) continue
      for (const { server, version } of chunks.get(chunk)?.former ?? []) {
        replicas.push({ chunk, server, versionMax: version, damaged: false })
      }
    }
    if (replicas.length > 0) master.submit({ type: 'replica.condemn', replicas })
  }

  /** Nothing can ever be read from them: their place is needed for an empty replica. */
  #addDamaged(chunk: number, replicas: (CondemnedRow & { damaged: boolean })[]): void {
    const { damaged, master } = this.#parts
    for (const { server, version } of master.state.chunks.get(chunk)?.former ?? []) {
      if (damaged.has(chunk, server)) replicas.push({ chunk, server, versionMax: version, damaged: true })
    }
  }

  #isComplete(chunk: number): boolean {
    const { master, view } = this.#parts
    const row = master.state.chunks.get(chunk)
    const file = row === undefined ? undefined : master.state.inodes.get(row.inode)
    if (row === undefined || file === undefined || row.pending !== null || row.dirtyDead) return false
    // rule J7: a stale replica may have what no member in sync can supply
    if (this.#parts.missingPages.has(chunk)) return false
    const good = row.members.filter((member) => member.role === 'in-sync' && view.isReachable(member.server))
    return good.length >= effectivePlacement(file).replicasNormal
  }

  #forgetEnded(): void {
    for (const chunk of this.#completeSinceMs.keys()) {
      const row = this.#parts.master.state.chunks.get(chunk)
      if (row === undefined || row.former.length === 0) this.#completeSinceMs.delete(chunk)
    }
    for (const key of this.#dueMs.keys()) {
      if (!this.#parts.master.state.condemned.has(key)) this.#dueMs.delete(key)
    }
  }
}
