/** Randomness that replays from its seed (xoshiro128**). `fork` gives independent streams by name. */
import type { Random } from '../../platform/random.ts'

function mix(value: number): number {
  let mixed = value | 0
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b)
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35)
  return (mixed ^ (mixed >>> 16)) >>> 0
}

function rotate(value: number, bits: number): number {
  return ((value << bits) | (value >>> (32 - bits))) >>> 0
}

export class SeededRandom implements Random {
  readonly seed: number
  #a: number
  #b: number
  #c: number
  #d: number

  constructor(seed: number) {
    this.seed = seed >>> 0
    this.#a = mix(this.seed + 0x9e3779b9)
    this.#b = mix(this.#a + 0x9e3779b9)
    this.#c = mix(this.#b + 0x9e3779b9)
    this.#d = mix(this.#c + 0x9e3779b9) | 1
  }

  /** The same name gives the same stream; streams do not disturb each other. */
  fork(name: string): SeededRandom {
    let hash = this.seed
    for (const byte of Buffer.from(name)) hash = mix(Math.imul(hash, 31) + byte)
    return new SeededRandom(hash)
  }

  uint32(): number {
    const result = Math.imul(rotate(Math.imul(this.#b, 5) >>> 0, 7), 9) >>> 0
    const shifted = (this.#b << 9) >>> 0
    this.#c = (this.#c ^ this.#a) >>> 0
    this.#d = (this.#d ^ this.#b) >>> 0
    this.#b = (this.#b ^ this.#c) >>> 0
    this.#a = (this.#a ^ this.#d) >>> 0
    this.#c = (this.#c ^ shifted) >>> 0
    this.#d = rotate(this.#d, 11)
    return result
  }

  float(): number {
    return this.uint32() / 4294967296
  }

  below(boundExclusive: number): number {
    return Math.floor(this.float() * boundExclusive)
  }

  bytes(count: number): Buffer {
    const bytes = Buffer.alloc(count)
    for (let position = 0; position < count; position++) bytes[position] = this.uint32() & 0xff
    return bytes
  }

  hex(byteCount: number): string {
    return this.bytes(byteCount).toString('hex')
  }
}
