/**
 * Status of the cluster as the guide defines it, and the events of its changes. Failed: too many chunk
 * servers offline on too many hosts; then nothing is copied until the operator acts, because the cause is
 * more likely a network than that many disks. Unknown: a new master has not heard from all servers yet.
 */
import type { EventRecorder } from './servers/event-recorder.ts'
import type { Master } from './servers/master.ts'

export type ClusterStatus = 'healthy' | 'degraded' | 'failure' | 'unknown'

export interface ServerCounts {
  readonly active: number
  readonly inactive: number
  readonly offline: number
}

const OFFLINE_CALM_MS = 1000
const FILL_WARN_PCT = 80
const FILL_STEP_PCT = 5

export class ClusterHealth {
  readonly #master: Master
  readonly #events: EventRecorder
  #isInformed = false
  #lastOfflineMs = Number.NEGATIVE_INFINITY
  #announced = ''
  #announcedFillPct = 0

  constructor(master: Master, events: EventRecorder) {
    this.#master = master
    this.#events = events
  }

  /** Every server that was not offline has reported, or had its time to. */
  setInformed(): void {
    if (this.#isInformed) return
    this.#isInformed = true
    this.maybeAnnounce()
  }

  get isInformed(): boolean {
    return this.#isInformed
  }

  counts(): ServerCounts {
    const counts = { active: 0, inactive: 0, offline: 0 }
    for (const row of this.#master.state.servers.values()) {
      if (row.state !== 'dropped') counts[row.state] += 1
    }
    return counts
  }

  get isFailed(): boolean {
    const countMax = this.#master.parameter('mds.wd.max_offline_cs')
    if (countMax === 0) return false
    const hosts = new Set<string>()
    let count = 0
    for (const row of this.#master.state.servers.values()) {
      if (row.state !== 'offline') continue
      count += 1
      hosts.add(row.hostId)
    }
    return count > countMax && hosts.size > this.#master.parameter('mds.wd.max_offline_cs_hosts')
  }

  get status(): ClusterStatus {
    if (!this.#isInformed) return 'unknown'
    if (this.isFailed) return 'failure'
    const { inactive, offline } = this.counts()
    return inactive + offline === 0 ? 'healthy' : 'degraded'
  }

  /**
   * New copies: not before all servers were heard, not while the cluster has failed, and not in the moment
   * after a server went offline, because others may follow together with it.
   */
  get mayCopy(): boolean {
    const isCalm = this.#master.clock.nowMs() - this.#lastOfflineMs >= OFFLINE_CALM_MS
    return isCalm && this.#isInformed && !this.isFailed
  }

  serverChanged(server: number): void {
    if (this.#master.state.servers.get(server)?.state === 'offline') {
      this.#lastOfflineMs = this.#master.clock.nowMs()
    }
    this.maybeAnnounce()
  }

  /** After something that decides the status changed. */
  maybeAnnounce(): void {
    const { status } = this
    if (status === 'unknown') return
    const { active, inactive, offline } = this.counts()
    const numbers = `${active} active, ${inactive} inactive, ${offline} offline CS`
    const countMax = this.#master.parameter('mds.wd.max_offline_cs')
    const message =
      status === 'healthy'
        ? `The cluster is healthy with ${active} active CS`
        : status === 'degraded'
          ? `The cluster is degraded with ${numbers}`
          : `The cluster failed with ${numbers} (mds.wd.max_offline_cs=${countMax})`
    if (message === this.#announced) return
    this.#announced = message
    const severity = status === 'healthy' ? 'info' : status === 'degraded' ? 'warn' : 'err'
    this.#events.record('MDS', severity, `CLUSTER_${status.toUpperCase()}`, message)
  }

  /** Steps of 5 % from 80 % on, so that filling up says it a few times and not at every heartbeat. */
  maybeAnnounceFill(totalBytes: number, freeBytes: number): void {
    if (totalBytes <= 0) return
    const usedPct = Math.floor((100 * (totalBytes - freeBytes)) / totalBytes)
    const step = Math.floor(usedPct / FILL_STEP_PCT) * FILL_STEP_PCT
    if (step > this.#announcedFillPct && usedPct >= FILL_WARN_PCT) {
      this.#events.record('MDS', 'warn', 'CLUSTER_FILLED', `The cluster is filled up to ${usedPct}%`)
      this.#announcedFillPct = step
    } else if (step < this.#announcedFillPct - FILL_STEP_PCT) this.#announcedFillPct = step
  }
}
