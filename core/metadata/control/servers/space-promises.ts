/**
 * Space promised to chunks under a write intent (rule A2): on each member the difference between the end up to
 * which may be written and what the replica holds already. Chunk servers tell with their heartbeats how much
 * replicas have grown, beside the free space that this took, so that nothing counts twice for long.
 *
 * Soft: a new master promises again what its intents stand for. It reserves nothing for pages that become
 * written inside the known size of a file (a thin volume): those are refused by the full disk itself.
 */
import type { ServersView } from './servers-view.ts'

/** Promises up to this are not kept until the next heartbeat: what they may hide of free space does not matter. */
const SETTLED_BYTES_MIN = 1024 * 1024

interface Promised {
  /** End, within the chunk, up to which may be written. */
  limitBytes: number
  /** What every replica may have held when the intent was granted. */
  readonly baseBytes: number
  /** By server: what its replica has grown to. */
  readonly heldBytes: Map<number, number>
}

/** What one grant stands for. */
export interface SpaceRequest {
  readonly chunk: number
  readonly servers: readonly number[]
  readonly limitBytes: number
  readonly baseBytes: number
}

function openBytes(promised: Promised | undefined, server: number): number {
  const held = promised?.heldBytes.get(server)
  if (promised === undefined || held === undefined) return 0
  return Math.max(0, promised.limitBytes - Math.max(promised.baseBytes, held))
}

export class SpacePromises {
  readonly #view: ServersView
  /** Bounded by the number of intents. */
  readonly #chunks = new Map<number, Promised>()
  /** By server: of intents that have ended since its last heartbeat; what was written does not show yet. */
  readonly #settlingBytes = new Map<number, number>()

  constructor(view: ServersView) {
    this.#view = view
  }

  /** Chunks with promises, a copy. */
  chunks(): number[] {
    return [...this.#chunks.keys()]
  }

  /** What the chunk held when its intent was granted; a new one nothing, whatever size the file has. */
  baseBytesOf(chunk: number): number | undefined {
    return this.#chunks.get(chunk)?.baseBytes
  }

  /** The first server without room for the request, or null. */
  serverWithoutRoom({ chunk, servers, limitBytes, baseBytes }: SpaceRequest): number | null {
    const promised = this.#chunks.get(chunk)
    for (const server of servers) {
      const held = Math.max(promised?.baseBytes ?? baseBytes, promised?.heldBytes.get(server) ?? 0)
      const more = limitBytes - held - openBytes(promised, server)
      // Overwriting what is there needs no room.
      if (more > 0 && more > this.#view.freeBytesOf(server)) return server
    }
    return null
  }

  /** Promises; a higher limit than before is added to it. The members are exactly these now. */
  promise({ chunk, servers, limitBytes, baseBytes }: SpaceRequest): void {
    let promised = this.#chunks.get(chunk)
    if (promised === undefined) {
      promised = { limitBytes: 0, baseBytes, heldBytes: new Map() }
      this.#chunks.set(chunk, promised)
    }
    const before = new Map(
      [...promised.heldBytes.keys()].map((server) => [server, openBytes(promised, server)]),
    )
    promised.limitBytes = Math.max(promised.limitBytes, limitBytes)
    for (const server of promised.heldBytes.keys()) {
      if (!servers.includes(server)) promised.heldBytes.delete(server)
    }
    for (const server of servers) {
      if (!promised.heldBytes.has(server)) promised.heldBytes.set(server, 0)
    }
    for (const server of new Set([...before.keys(), ...servers])) {
      this.#view.promise(server, openBytes(promised, server) - (before.get(server) ?? 0))
    }
  }

  /** With the free space of the same moment, which calls this before `heartbeat`. */
  grew(server: number, chunk: number, bytes: number): void {
    const promised = this.#chunks.get(chunk)
    const held = promised?.heldBytes.get(server)
    // A server that restarted counts from 0 again; what it holds did not get less.
    if (promised === undefined || held === undefined || bytes <= held) return
    const before = openBytes(promised, server)
    promised.heldBytes.set(server, bytes)
    this.#view.promise(server, openBytes(promised, server) - before)
  }

  /** Its free space is known afresh. */
  heartbeat(server: number): void {
    const bytes = this.#settlingBytes.get(server) ?? 0
    this.#settlingBytes.delete(server)
    this.#view.promise(server, -bytes)
  }

  /** The intent is gone, or the chunk was not created after all (`wasUsed` false). */
  ended(chunk: number, wasUsed: boolean): void {
    const promised = this.#chunks.get(chunk)
    if (promised === undefined) return
    this.#chunks.delete(chunk)
    const isKept = wasUsed && promised.limitBytes > SETTLED_BYTES_MIN
    for (const server of promised.heldBytes.keys()) {
      const bytes = openBytes(promised, server)
      if (isKept) this.#settlingBytes.set(server, (this.#settlingBytes.get(server) ?? 0) + bytes)
      else this.#view.promise(server, -bytes)
    }
  }

  /** It is gone, and its free space is asked for anew when it returns. */
  serverLost(server: number): void {
    this.heartbeat(server)
  }
}
