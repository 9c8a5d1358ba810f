/**
 * Has overlays merged (docs/formats/snapshots.md, rule S5): those over chunks that nobody holds any more, so that
 * these can go, and those at the end of long chains. The chunk servers do it at their own pace; an order that got lost
 * is given again.
 */
import { depthOf, OVERLAY_DEPTH_MERGED } from '../../chunks/sharing.ts'
import type { Master } from '../servers/master.ts'
import type { ServerOrders } from '../servers/server-orders.ts'
import type { ServersView } from '../servers/servers-view.ts'

const TICK_MS = 250
const HIDDEN_PER_TICK_MAX = 256
const OVERLAYS_PER_TICK_MAX = 1_000
const IN_FLIGHT_PER_SERVER_MAX = 32
/** When nothing is heard of it. */
const ORDERED_AGAIN_MS = 30_000

export class Merges {
  readonly #master: Master
  readonly #orders: ServerOrders
  readonly #view: ServersView
  /** By server: the chunk, and when it was ordered. */
  readonly #ordered = new Map<number, Map<number, number>>()
  #hidden: Iterator<number> | null = null
  #overlays: Iterator<number> | null = null

  constructor(master: Master, orders: ServerOrders, view: ServersView) {
    this.#master = master
    this.#orders = orders
    this.#view = view
    master.every(TICK_MS, () => this.#tick())
  }

  /** `cs.merged`. */
  merged(server: number, replicas: readonly { chunk: number; parent: number }[]): void {
    for (const { chunk } of replicas) this.#ordered.get(server)?.delete(chunk)
    const changed = replicas
      .filter(({ chunk, parent }) => this.parentOf(chunk, server) !== parent)
      .map(({ chunk, parent }) => ({ chunk, server, parent }))
    if (changed.length > 0) this.#master.submit({ type: 'replica.parent', replicas: changed })
  }

  /** 0: flat, as far as the quorum knows. */
  parentOf(chunk: number, server: number): number {
    const { sharing } = this.#master.state.chunks
    return sharing.overlays(chunk).find((entry) => entry.server === server)?.parent ?? 0
  }

  #tick(): void {
    const master = this.#master
    if (master.isInRecovery) return
    const { sharing } = master.state.chunks
    this.#hidden ??= sharing.hidden.values()
    for (let count = 0; count < HIDDEN_PER_TICK_MAX; count++) {
      const next = this.#hidden.next()
      if (next.done === true) {
        this.#hidden = null
        break
      }
      for (const child of sharing.children(next.value) ?? []) this.#order(child, next.value)
    }
    this.#overlays ??= sharing.chunksWithOverlays()
    for (let count = 0; count < OVERLAYS_PER_TICK_MAX; count++) {
      const next = this.#overlays.next()
      if (next.done === true) {
        this.#overlays = null
        break
      }
      if (depthOf(master.state, next.value) > OVERLAY_DEPTH_MERGED) this.#order(next.value, 0)
    }
  }

  /** On all servers where it reads through `parent`; 0: through any. */
  #order(child: number, parent: number): void {
    const master = this.#master
    const nowMs = master.clock.nowMs()
    for (const overlay of master.state.chunks.sharing.overlays(child)) {
      const { server } = overlay
      if (parent !== 0 && overlay.parent !== parent) continue
      if (!this.#view.isReachable(server)) continue
      const ordered = this.#ordered.get(server) ?? new Map<number, number>()
      this.#ordered.set(server, ordered)
      const atMs = ordered.get(child)
      if (atMs === undefined && ordered.size >= IN_FLIGHT_PER_SERVER_MAX) this.#forgetOld(ordered, nowMs)
      if (atMs === undefined ? ordered.size >= IN_FLIGHT_PER_SERVER_MAX : nowMs - atMs < ORDERED_AGAIN_MS)
        continue
      ordered.set(child, nowMs)
      this.#orders.merge(server, { chunk: child, parent: overlay.parent }, (code) => {
        // It is tried again when its time is over.
        if (code !== '') master.logger.debug('not merged', { chunk: child, server, code })
      })
    }
  }

  #forgetOld(ordered: Map<number, number>, nowMs: number): void {
    for (const [chunk, atMs] of ordered) if (nowMs - atMs >= ORDERED_AGAIN_MS) ordered.delete(chunk)
  }
}
