/** A bounded first-in first-out queue over a ring; grows up to `countMax`, never shrinks, never shifts. */
import { assert } from './assert.ts'

export class Deque<T> {
  readonly countMax: number
  #items: (T | undefined)[] = new Array<T | undefined>(16)
  #head = 0
  #count = 0

  constructor(countMax: number) {
    assert(countMax > 0, 'a queue has room for something')
    this.countMax = countMax
  }

  get count(): number {
    return this.#count
  }

  /** False, and nothing happens, when full. */
  push(item: T): boolean {
    if (this.#count === this.countMax) return false
    if (this.#count === this.#items.length) this.#grow()
    this.#items[(this.#head + this.#count) & (this.#items.length - 1)] = item
    this.#count++
    return true
  }

  shift(): T | undefined {
    if (this.#count === 0) return undefined
    const item = this.#items[this.#head]
    this.#items[this.#head] = undefined
    this.#head = (this.#head + 1) & (this.#items.length - 1)
    this.#count--
    return item
  }

  peek(): T | undefined {
    return this.#count === 0 ? undefined : this.#items[this.#head]
  }

  clear(): void {
    this.#items = new Array<T | undefined>(16)
    this.#head = 0
    this.#count = 0
  }

  #grow(): void {
    const grown = new Array<T | undefined>(this.#items.length * 2)
    for (let i = 0; i < this.#count; i++) grown[i] = this.#items[(this.#head + i) & (this.#items.length - 1)]
    this.#items = grown
    this.#head = 0
  }
}
