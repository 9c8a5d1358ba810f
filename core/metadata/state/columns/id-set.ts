/** A set of ids for millions of them: 15 bytes each, and it grows in small parts, where a Set stops everything. */
import { Column, NO_SLOT, Slots } from './columns.ts'
import { hashOfNumbers, SlotIndex } from './slot-index.ts'

export class IdSet {
  readonly #id = Column.ofNumbers()
  readonly #slots = new Slots(Column.ofUint32())
  readonly #byId: SlotIndex
  #sought = 0

  constructor() {
    this.#byId = new SlotIndex({
      hashOfSlot: (slot) => hashOfNumbers(this.#id.get(slot)),
      isSought: (slot) => this.#id.get(slot) === this.#sought,
    })
  }

  get size(): number {
    return this.#slots.count
  }

  has(id: number): boolean {
    return this.#find(id) !== NO_SLOT
  }

  add(id: number): void {
    if (this.has(id)) return
    const slot = this.#slots.take()
    this.#id.set(slot, id)
    this.#byId.add(slot)
  }

  #find(id: number): number {
    this.#sought = id
    return this.#byId.find(hashOfNumbers(id))
  }
}
