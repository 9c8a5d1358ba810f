/**
 * Where the written bytes of each region end (rule F8) as far as it was decided under one epoch that the replica
 * has not joined yet. What its records say is from before: the file may have been truncated while it was away,
 * so in a join the source's word counts (rule P3), except for what writers did here meanwhile, which the source
 * may have had before or after it was asked (rule P4).
 */
import { REGION_SIZE_BYTES, REGIONS_PER_CHUNK } from '../../base/units.ts'

export class WrittenEnds {
  /** By writes and pulled pages of this epoch. */
  readonly #ends = new Uint32Array(REGIONS_PER_CHUNK)
  /** Where the deepest truncation of this epoch cut the region: all that is written behind it arrives here, too. */
  readonly #cuts = new Uint32Array(REGIONS_PER_CHUNK).fill(REGION_SIZE_BYTES)

  extend(region: number, end: number): void {
    this.#ends[region] = Math.max(this.#ends[region] ?? 0, end)
  }

  cut(region: number, end: number): void {
    this.#ends[region] = Math.min(this.#ends[region] ?? 0, end)
    this.#cuts[region] = Math.min(this.#cuts[region] ?? 0, end)
  }

  /** The end for a replica that joins from a source that said `sourceEnd`, at any time of this epoch. */
  joined(region: number, sourceEnd: number): number {
    return Math.max(this.#ends[region] ?? 0, Math.min(this.#cuts[region] ?? 0, sourceEnd))
  }
}
