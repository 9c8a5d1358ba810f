/** Randomness, as an interface. Nothing secret comes from here but what `bytes` gives. */

export interface Random {
  /** Uniform in [0, 1). */
  float(): number
  /** Uniform integer in [0, boundExclusive). */
  below(boundExclusive: number): number
  /** Cryptographically strong in production, seeded in simulation. */
  bytes(count: number): Buffer
  /** Lower-case hexadecimal of `bytes(byteCount)`. */
  hex(byteCount: number): string
}
