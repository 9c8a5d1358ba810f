/**
 * Ends replicas (rules G1, G2): stale ones of chunks that have been complete for a grace are condemned by a
 * command; condemned ones are deleted by version after their grace, and confirmed by a command. Graces start
 * afresh with every master (rule L11). An alarm, a replica the quorum cannot have given out, stops all of it
 * until the operator has looked (chunks/alarm.ts).
 */
import { mark } from '../../../base/coverage.ts'
import { ShardedMap } from '../../../base/sharded.ts'
import { isAlarmed } from '../../chunks/administration.ts'
import { placementOf } from '../../chunks/sharing.ts'
import type { CondemnedRow } from '../../state/rows.ts'
import type { DamagedReplicas } from './damaged-replicas.ts'
import type { EventRecorder } from '../servers/event-recorder.ts'
import type { Master } from '../servers/master.ts'
import type { MissingPages } from './missing-pages.ts'
import type { ServerOrders } from '../servers/server-orders.ts'
import type { ServersView } from '../servers/servers-view.ts'

const TICK_MS = 250
const CONDEMNED_PER_TICK_MAX = 2_000
/** Places of the table: those that had a replica stay. */
const CONDEMNED_SLOTS_PER_TICK_MAX = 65_536
const CONDEMNED_SLOTS_PER_STEP = 512
const MARKS_PER_GRACE = 256
const FORMER_PER_TICK_MAX = 1_000
const DELETES_IN_FLIGHT_MAX = 4_096
const CONFIRM_BATCH_COUNT_MAX = 1_024
/** A server that refused (it has something newer) is asked again this much later. */
const REFUSED_PAUSE_MS = 60_000
/** Others are asked again at once. */
const REFUSED_COUNT_MAX = 10_000
/** One where an overlay is deleted or merged first (rule S3). */
const OVERLAY_PAUSE_MS = 1_000

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
  readonly #waiting = new GraceMarks()
  /** Where the next look at what is condemned begins. */
  #slot = 0
  readonly #inFlight = new Set<string>()
  readonly #refusedUntilMs = new Map<string, number>()
  readonly #completeSinceMs = new ShardedMap<number>()
  #former: Iterator<number> | null = null
  #complete: Iterator<number> | null = null
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
    const { condemned } = this.#parts.master.state
    const nowMs = this.#parts.master.clock.nowMs()
    this.#waiting.note(condemned.lastSerial, nowMs, this.#graceMs)
    const dueSerial = this.#waiting.dueSerial(nowMs, this.#graceMs)
    let count = 0
    for (let looked = 0; looked < CONDEMNED_SLOTS_PER_TICK_MAX; looked += CONDEMNED_SLOTS_PER_STEP) {
      const next = condemned.scan(
        this.#slot,
        CONDEMNED_SLOTS_PER_STEP,
        (chunk, server, versionMax, serial) => {
          count += 1
          if (serial <= dueSerial) this.#delete(chunk, server, versionMax, nowMs)
        },
      )
      this.#slot = Math.max(0, next)
      if (next < 0 || count >= CONDEMNED_PER_TICK_MAX) return
    }
  }

  get #graceMs(): number {
    return this.#parts.master.parameter('mds.gc.grace')
  }

  #delete(chunk: number, server: number, versionMax: number, nowMs: number): void {
    const { view, orders } = this.#parts
    if (this.#inFlight.size >= DELETES_IN_FLIGHT_MAX || !view.isReachable(server)) return
    const key = keyOf(chunk, server)
    if (this.#inFlight.has(key) || nowMs < (this.#refusedUntilMs.get(key) ?? 0)) return
    this.#inFlight.add(key)
    orders.delete(server, { chunk, versionMax }, (code) => this.#answered(chunk, server, code))
  }

  #answered(chunk: number, server: number, code: string): void {
    const key = keyOf(chunk, server)
    this.#inFlight.delete(key)
    this.#refusedUntilMs.delete(key)
    if (code === '' || code === 'NO_REPLICA') {
      this.#parts.damaged.delete(chunk, server)
      if (this.#confirmed.length === 0) this.#parts.master.defer(() => this.#confirm())
      this.#confirmed.push({ chunk, server })
    } else if (
      (code === 'REFUSED' || code === 'HAS_OVERLAY') &&
      this.#refusedUntilMs.size < REFUSED_COUNT_MAX
    ) {
      const pauseMs = code === 'REFUSED' ? REFUSED_PAUSE_MS : OVERLAY_PAUSE_MS
      this.#refusedUntilMs.set(key, this.#parts.master.clock.nowMs() + pauseMs)
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
    this.#forgetEnded()
    this.#former ??= chunks.formerChunks()
    for (let count = 0; count < FORMER_PER_TICK_MAX; count++) {
      const next = this.#former.next()
      if (next.done === true) {
        this.#former = null
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
    const placement = row === undefined ? undefined : placementOf(master.state, row)
    if (row === undefined || placement === undefined || row.pending !== null || row.dirtyDead) return false
    // rule J7: a stale replica may have what no member in sync can supply
    if (this.#parts.missingPages.has(chunk)) {
      mark('a stale replica is kept for pages that are missing')
      return false
    }
    const good = row.members.filter((member) => member.role === 'in-sync' && view.isReachable(member.server))
    return good.length >= placement.replicasNormal
  }

  #forgetEnded(): void {
    this.#complete ??= this.#completeSinceMs.keys()
    for (let count = 0; count < FORMER_PER_TICK_MAX; count++) {
      const next = this.#complete.next()
      if (next.done === true) {
        this.#complete = null
        break
      }
      const row = this.#parts.master.state.chunks.get(next.value)
      if (row === undefined || row.former.length === 0) this.#completeSinceMs.delete(next.value)
    }
    const nowMs = this.#parts.master.clock.nowMs()
    for (const [key, untilMs] of this.#refusedUntilMs) if (nowMs >= untilMs) this.#refusedUntilMs.delete(key)
  }
}

/**
 * Which of what was condemned has waited for its grace, as this master counts it (rule L11): one mark for each
 * while, instead of a time for each replica. All that a mark covers waits as long as the last of it.
 */
class GraceMarks {
  readonly #marks: { serial: number; readonly firstMs: number; lastMs: number }[] = []
  #dueSerial = 0

  note(serial: number, nowMs: number, graceMs: number): void {
    const last = this.#marks.at(-1)
    if (serial === (last?.serial ?? this.#dueSerial)) return
    if (last === undefined || nowMs - last.firstMs >= graceMs / MARKS_PER_GRACE)
      this.#marks.push({ serial, firstMs: nowMs, lastMs: nowMs })
    else {
      last.serial = serial
      last.lastMs = nowMs
    }
  }

  /** What has this serial number or a lower one may be deleted. */
  dueSerial(nowMs: number, graceMs: number): number {
    const isDue = (mark: { lastMs: number } | undefined): boolean =>
      mark !== undefined && nowMs >= mark.lastMs + graceMs
    while (isDue(this.#marks[0])) this.#dueSerial = this.#marks.shift()?.serial ?? 0
    return this.#dueSerial
  }
}

function keyOf(chunk: number, server: number): string {
  return `${chunk}/${server}`
}
