/**
 * Which metadata server to dial next, and after what pause: until the master is found, and again when it is
 * lost. Servers that say who the master is are believed first, then the register of metadata servers, which the
 * master tells whoever it serves: so a cluster may move as a whole, one member after the other; one that fell silent is passed over for a while,
 * because the others may still take it for the master. As long as anybody answers the search goes on quickly:
 * an election is under way, and it is over in a second or two. When nobody does, pauses grow.
 */
import type { Clock } from '../platform/clock.ts'
import type { Address } from '../platform/network.ts'
import type { Random } from '../platform/random.ts'
import { addressKey, type MetadataServers, SERVERS_MAX } from './metadata-servers.ts'

/** Between two rounds while there is no master. */
const ELECTION_PAUSE_MS = 100
/**
 * A second and more after the silence began it is found: by then the others have noticed too, and who still
 * names that server has heard it since.
 */
const AVOID_MS = 1_500
/** Two servers may name each other. */
const HINTS_IN_ROW_MAX = 3

export interface MasterFinderOptions {
  readonly servers: MetadataServers
  readonly clock: Clock
  readonly random: Pick<Random, 'float'>
  readonly pauseMsMin: number
  readonly pauseMsMax: number
}

export class MasterFinder {
  readonly #options: MasterFinderOptions
  /** The register, as the last master told it. */
  #told: readonly Address[] = []
  #position = 0
  /** Tried since the last pause. */
  #triedCount = 0
  #isAnybodyThere = false
  #hint: Address | null = null
  #hintCount = 0
  /** Address key to the time until which it is passed over; at most as many as there are servers. */
  readonly #avoidedUntilMs = new Map<string, number>()
  #pauseMs: number

  constructor(options: MasterFinderOptions) {
    this.#options = options
    this.#pauseMs = options.pauseMsMin
  }

  /** Base address; undefined while none is known. */
  next(): Address | undefined {
    if (this.#hint !== null) return this.#hint
    const list = this.#list()
    for (let step = 0; step < list.length; step++) {
      const address = list[(this.#position + step) % list.length]
      if (address !== undefined && !this.#isAvoided(address)) {
        this.#position += step
        return address
      }
    }
    return list[this.#position % Math.max(1, list.length)]
  }

  /** By the master that serves: where the metadata servers are, or will be sought when it is gone. */
  told(addresses: readonly Address[]): void {
    this.#told = addresses.slice(0, SERVERS_MAX)
  }

  /** Is there anybody else to ask? */
  get hasOthers(): boolean {
    return this.#list().length > 1
  }

  /** It serves. */
  found(): void {
    this.#pauseMs = this.#options.pauseMsMin
    this.#hintCount = 0
    this.#triedCount = 0
    this.#isAnybodyThere = false
  }

  /** It answered and is not the master; `master` is who it takes for it. Returns the pause before the next try. */
  notMaster(address: Address, master: Address | null): number {
    this.#isAnybodyThere = true
    const isNews = master !== null && addressKey(master) !== addressKey(address) && !this.#isAvoided(master)
    if (isNews && this.#hintCount < HINTS_IN_ROW_MAX) {
      this.#hintCount++
      this.#hint = master
      return 0
    }
    return this.#goOn()
  }

  /** It was the master for us, and the connection ended; `wasSilent`: it did not answer. */
  lost(address: Address, wasSilent: boolean): number {
    this.found()
    this.#hint = null
    if (wasSilent) this.#avoid(address)
    this.#position++
    return 0
  }

  /** It did not answer at all. */
  silent(address: Address): number {
    this.#avoid(address)
    return this.#goOn()
  }

  /** No connection, or it was refused for another reason. */
  failed(): number {
    return this.#goOn()
  }

  #goOn(): number {
    const { servers, random, pauseMsMax } = this.#options
    // A hint that came to nothing says nothing about who is next in the list.
    if (this.#hint === null) this.#position++
    this.#hint = null
    this.#triedCount++
    if (this.#triedCount < this.#list().length) return 0
    this.#triedCount = 0
    this.#hintCount = 0
    void servers.ask()
    const pauseMs = this.#isAnybodyThere ? ELECTION_PAUSE_MS : this.#pauseMs
    if (!this.#isAnybodyThere) this.#pauseMs = Math.min(pauseMsMax, this.#pauseMs * 2)
    this.#isAnybodyThere = false
    return pauseMs * (0.5 + random.float())
  }

  #list(): readonly Address[] {
    const list = this.#options.servers.list()
    if (this.#told.length === 0) return list
    const known = new Set(this.#told.map(addressKey))
    return [...this.#told, ...list.filter((address) => !known.has(addressKey(address)))]
  }

  #avoid(address: Address): void {
    const nowMs = this.#options.clock.nowMs()
    for (const [key, untilMs] of this.#avoidedUntilMs) if (untilMs <= nowMs) this.#avoidedUntilMs.delete(key)
    this.#avoidedUntilMs.set(addressKey(address), nowMs + AVOID_MS)
  }

  #isAvoided(address: Address): boolean {
    return this.#options.clock.nowMs() < (this.#avoidedUntilMs.get(addressKey(address)) ?? 0)
  }
}
