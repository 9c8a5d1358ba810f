/**
 * What the chunk servers hold when the metadata have begun anew and may be behind them. It is gathered and shown;
 * nothing is decided before an administrator says so (rule G1). Of each chunk the replicas of the highest version
 * that are in sync, or were being reconciled, have every acknowledged write (rules E1, J1); one that only joins
 * at that version has not, and shows that a better one is missing.
 */
import type { ReplicaReport } from '../../../wire/messages/chunk.ts'
import { committedVersion } from '../../chunks/condemning.ts'
import type { ChunkRow } from '../../state/rows.ts'
import type { Master } from '../servers/master.ts'
import type { ServerConnection } from '../servers/server-connection.ts'

const SLOTS_PER_SLICE = 4_096

interface Returned {
  /** Of complete replicas. */
  version: number
  servers: number[]
  /** Of all, also incomplete and damaged ones. */
  versionMax: number
}

export interface Adoption {
  readonly chunk: number
  readonly version: number
  readonly servers: number[]
}

export interface ReturnedSummary {
  /** Of the metadata. */
  readonly chunkCount: number
  /** With a complete replica at least as new as the metadata remember. */
  readonly foundCount: number
  /** Of those: newer than the metadata remember. */
  readonly newerCount: number
  /** A version higher than that of every complete replica was reported: the best one is missing. */
  readonly doubtfulCount: number
  /** No complete replica was reported that is as new. */
  readonly missingCount: number
  /** Not in the metadata: files written after the copy was made. They are kept. */
  readonly unknownCount: number
}

export class ReturnedReplicas {
  readonly #master: Master
  readonly #connections: ReadonlyMap<number, ServerConnection>
  readonly #chunks = new Map<number, Returned>()
  #versionMax = 0

  constructor(master: Master, connections: ReadonlyMap<number, ServerConnection>) {
    this.#master = master
    this.#connections = connections
  }

  page(connection: ServerConnection, replicas: readonly ReplicaReport[]): void {
    for (const replica of replicas) this.#note(connection.server, replica)
  }

  end(connection: ServerConnection): Promise<void> {
    connection.reported = null
    return Promise.resolve()
  }

  get versionMax(): number {
    return this.#versionMax
  }

  /** Ids of chunk servers that the metadata know and that have not reported. */
  missingServers(): number[] {
    return [...this.#master.state.servers.values()]
      .filter(({ server, state }) => state !== 'dropped' && !this.#hasReported(server))
      .map(({ server }) => server)
      .toSorted((a, b) => a - b)
  }

  async summary(): Promise<ReturnedSummary> {
    const counts = { foundCount: 0, newerCount: 0, doubtfulCount: 0, missingCount: 0 }
    const { chunks } = this.#master.state
    let knownCount = 0
    await this.#forEach((row) => {
      const returned = this.#chunks.get(row.chunk)
      if (returned !== undefined) knownCount += 1
      if (returned === undefined || returned.version < row.version) counts.missingCount += 1
      else counts.foundCount += 1
      if (returned === undefined) return
      if (returned.version > committedVersion(row)) counts.newerCount += 1
      if (returned.versionMax > Math.max(returned.version, committedVersion(row))) counts.doubtfulCount += 1
    })
    return { ...counts, chunkCount: chunks.size, unknownCount: this.#chunks.size - knownCount }
  }

  /** Of every chunk of the metadata, in parts. Nothing may change meanwhile. */
  async adoptions(countMax: number, take: (part: Adoption[]) => Promise<void>): Promise<void> {
    let parts: Adoption[] = []
    const all: Adoption[][] = []
    await this.#forEach(({ chunk }) => {
      const { version, servers } = this.#chunks.get(chunk) ?? { version: 0, servers: [] }
      parts.push({ chunk, version, servers: servers.toSorted((a, b) => a - b) })
      if (parts.length < countMax) return
      all.push(parts)
      parts = []
    })
    if (parts.length > 0) all.push(parts)
    for (const part of all) await take(part)
  }

  #hasReported(server: number): boolean {
    return this.#connections.get(server)?.isReported === true
  }

  #note(server: number, { chunk, version, role, damaged }: ReplicaReport): void {
    let returned = this.#chunks.get(chunk)
    if (returned === undefined) {
      returned = { version: 0, servers: [], versionMax: 0 }
      this.#chunks.set(chunk, returned)
    }
    returned.versionMax = Math.max(returned.versionMax, version)
    this.#versionMax = Math.max(this.#versionMax, version)
    if (role === 'joining' || damaged || version < returned.version) return
    if (version > returned.version) {
      returned.version = version
      returned.servers = []
    }
    if (!returned.servers.includes(server)) returned.servers.push(server)
  }

  /** In short slices: an administrator has time, heartbeats have not. */
  async #forEach(visit: (row: ChunkRow) => void): Promise<void> {
    for (let slot = 0; slot >= 0; ) {
      slot = this.#master.state.chunks.scan(slot, SLOTS_PER_SLICE, visit)
      if (slot >= 0) await new Promise<void>((resolve) => this.#master.defer(resolve))
    }
  }
}
