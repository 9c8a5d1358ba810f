/**
 * A map and a set of ids for up to many millions. The built-in ones copy everything at once when they grow, which
 * is a tenth of a second at a million entries, and end at 2^24; here one of 256 parts grows. In no order.
 */
const SHARD_BITS = 8
const SHARD_COUNT = 1 << SHARD_BITS

function shardOf(id: number): number {
  return Math.imul(id | 0, 0x9e3779b1) >>> (32 - SHARD_BITS)
}

export class ShardedMap<Value> {
  readonly #shards: readonly Map<number, Value>[] = Array.from({ length: SHARD_COUNT }, () => new Map())
  #size = 0

  get size(): number {
    return this.#size
  }

  get(id: number): Value | undefined {
    return this.#shard(id).get(id)
  }

  set(id: number, value: Value): void {
    const shard = this.#shard(id)
    const before = shard.size
    shard.set(id, value)
    this.#size += shard.size - before
  }

  delete(id: number): boolean {
    const isGone = this.#shard(id).delete(id)
    if (isGone) this.#size -= 1
    return isGone
  }

  /** What is added meanwhile may be missed, none is seen twice. */
  *keys(): Generator<number, undefined> {
    for (const shard of this.#shards) yield* shard.keys()
  }

  #shard(id: number): Map<number, Value> {
    return this.#shards[shardOf(id)] as Map<number, Value>
  }
}

export class ShardedSet {
  readonly #shards: readonly Set<number>[] = Array.from({ length: SHARD_COUNT }, () => new Set())
  #size = 0

  get size(): number {
    return this.#size
  }

  has(id: number): boolean {
    return this.#shard(id).has(id)
  }

  add(id: number): void {
    const shard = this.#shard(id)
    const before = shard.size
    shard.add(id)
    this.#size += shard.size - before
  }

  delete(id: number): boolean {
    const isGone = this.#shard(id).delete(id)
    if (isGone) this.#size -= 1
    return isGone
  }

  /** What is added meanwhile may be missed, none is seen twice. */
  *[Symbol.iterator](): Generator<number, undefined> {
    for (const shard of this.#shards) yield* shard
  }

  #shard(id: number): Set<number> {
    return this.#shards[shardOf(id)] as Set<number>
  }
}
