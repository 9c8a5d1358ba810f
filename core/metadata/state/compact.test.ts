/** The parts of compact tables answer as plain maps and sorted arrays do, and take what they promise. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Column, NO_SLOT, Slots } from './columns/columns.ts'
import { CookieOrder } from './columns/cookie-order.ts'
import { FileChunkLists } from './columns/file-chunks.ts'
import { InodeTable } from './inode-table.ts'
import { hashOfBytes, NameBytes } from './columns/name-bytes.ts'
import type { InodeFields } from './rows.ts'
import { hashOfNumbers, SlotIndex } from './columns/slot-index.ts'

/** Ids to slots, as a table does it. `clash`: all ids fall into one segment, and into few cells of it. */
class IdTable {
  readonly ids = Column.ofNumbers()
  readonly slots = new Slots(Column.ofUint32())
  readonly #hash: (id: number) => number
  readonly #index: SlotIndex
  #sought = 0

  constructor(clash: boolean) {
    this.#hash = clash ? (id) => id % 3 : hashOfNumbers
    this.#index = new SlotIndex({
      hashOfSlot: (slot) => this.#hash(this.ids.get(slot)),
      isSought: (slot) => this.ids.get(slot) === this.#sought,
    })
  }

  find(id: number): number {
    this.#sought = id
    return this.#index.find(this.#hash(id))
  }

  add(id: number): void {
    const slot = this.slots.take()
    this.ids.set(slot, id)
    this.#index.add(slot)
  }

  remove(slot: number): void {
    this.#index.remove(slot)
    this.slots.free(slot)
  }
}

test('an index finds what was added and not removed, also when all keys clash', () => {
  const ids = fc.array(fc.integer({ min: 1, max: 60 }), { maxLength: 200 })
  fc.assert(
    fc.property(ids, fc.boolean(), (steps, clash) => {
      const table = new IdTable(clash)
      const model = new Set<number>()
      // Each step turns one id on or off.
      for (const id of steps.map((step) => step * 4_294_967_311)) {
        const slot = table.find(id)
        assert.equal(slot !== NO_SLOT, model.has(id))
        if (model.delete(id)) table.remove(slot)
        else {
          model.add(id)
          table.add(id)
        }
        assert.equal(table.slots.count, model.size)
        for (const other of model) assert.equal(table.ids.get(table.find(other)), other)
      }
    }),
  )
})

test('entries stay in the order of their cookies, in whatever order they come and go', () => {
  const cookies = Column.ofNumbers()
  const order = new CookieOrder((slot) => cookies.get(slot))
  const model: number[] = []
  let random = 12_345
  const next = (below: number): number => {
    random = (Math.imul(random, 1_103_515_245) + 12_345) >>> 0
    return random % below
  }
  const check = (): void => {
    const sorted = model.toSorted((a, b) => cookies.get(a) - cookies.get(b))
    assert.deepEqual([...order.after(0)], sorted)
    const middle = cookies.get(sorted[sorted.length >> 1] ?? 0)
    assert.deepEqual(
      [...order.after(middle)],
      sorted.filter((slot) => cookies.get(slot) > middle),
    )
    assert.equal(order.count, model.length)
  }
  // Mixed up, as rows come from the store; then rising, as commands make them.
  for (let slot = 0; slot < 5_000; slot++) {
    cookies.set(slot, slot < 3_000 ? 1 + ((slot * 7_919) % 3_001) : 10_000 + slot)
    order.add(slot)
    model.push(slot)
    if (slot % 1_000 === 0) check()
  }
  check()
  while (model.length > 0) {
    const [slot = 0] = model.splice(next(model.length), 1)
    order.remove(slot)
    if (model.length % 1_000 === 0) check()
  }
})

test('names of every length come back, and their cells are used again', () => {
  const names = new NameBytes()
  const cells: [number, Buffer][] = []
  for (let length = 1; length <= 255; length++) {
    const bytes = Buffer.alloc(length, 97 + (length % 26))
    cells.push([names.add(bytes, length), bytes])
  }
  for (const [cell, bytes] of cells) {
    assert.equal(names.text(cell, bytes.length), bytes.toString())
    assert.ok(names.equals(cell, bytes.length, bytes))
    assert.equal(names.hash(cell, bytes.length), hashOfBytes(bytes, 0, bytes.length))
    const other = Buffer.from(bytes)
    other[bytes.length - 1] = 0
    assert.equal(names.equals(cell, bytes.length, other), false)
  }
  const before = names.byteLength
  for (let round = 0; round < 10_000; round++) names.free(names.add(Buffer.from('name'), 4), 4)
  assert.equal(names.byteLength, before)
})

const fields: InodeFields = {
  ...{ inode: 2, type: 'file', mode: 0o644, uid: 1, gid: 2, links: 1, size: 3, device: 0, generation: 5 },
  ...{ accessSeconds: -1, accessNanoseconds: 6, modifySeconds: 7, modifyNanoseconds: 8 },
  ...{ changeSeconds: 2 ** 40, changeNanoseconds: 10, parent: 0 },
}

test('a row that was kept does not become another inode when its own is gone', () => {
  const table = new InodeTable()
  const kept = table.add(fields)
  kept.chunks.set(1, 77)
  kept.zeroFrom = 9
  kept.chunks.clear()
  table.delete(2)
  const other = table.add({ ...fields, inode: 3, size: 4_096 })
  assert.equal(other.zeroFrom, undefined)
  other.chunks.set(0, 78)
  assert.deepEqual([kept.inode, kept.links, kept.size, kept.chunks.size, kept.type], [2, 0, 0, 0, 'file'])
  assert.throws(() => {
    kept.size = 1
  })
  assert.equal(other.size, 4_096)
})

test('chunk lists: dense, sparse, and emptied in any order', () => {
  const heads = { first: Column.ofUint32(), count: Column.ofUint32() }
  const lists = new FileChunkLists(heads)
  const key = fc.tuple(fc.integer({ min: 1, max: 3 }), fc.constantFrom(0, 1, 2, 3, 4, 1_000_000, 0xffff_ffff))
  fc.assert(
    fc.property(fc.array(key, { maxLength: 60 }), (steps) => {
      const model = new Map<string, number>()
      for (const [position, [owner, index]] of steps.entries()) {
        if (model.delete(`${owner}/${index}`)) lists.delete(owner, index)
        else {
          model.set(`${owner}/${index}`, position)
          lists.set(owner, index, position)
        }
        const found = [1, 2, 3].flatMap((file) => lists.indexes(file).map((at) => `${file}/${at}`))
        assert.deepEqual(found.toSorted(), [...model.keys()].toSorted())
        assert.equal(lists.get(owner, index), model.get(`${owner}/${index}`))
      }
      for (const owner of [1, 2, 3]) {
        lists.clear(owner)
        assert.equal(heads.count.get(owner), 0)
      }
    }),
  )
})

test('cuts leave at most so many chunks between each other', () => {
  const indexes = fc.uniqueArray(fc.nat({ max: 2_000 }), { maxLength: 400 })
  const heads = { first: Column.ofUint32(), count: Column.ofUint32() }
  const lists = new FileChunkLists(heads)
  fc.assert(
    fc.property(indexes, fc.nat({ max: 2_000 }), fc.integer({ min: 32, max: 100 }), (all, first, limit) => {
      for (const index of all) lists.set(1, index, index)
      const cuts = lists.cuts(1, first, limit)
      let end = Number.POSITIVE_INFINITY
      for (const cut of [...cuts, first]) {
        const count = all.filter((index) => index >= cut && index < end).length
        assert.ok(cut < end && count <= limit, `${count} from ${cut} on`)
        end = cut
      }
      const beyond = all.filter((index) => index >= first)
      if (beyond.length <= limit - 31) assert.deepEqual(cuts, [])
      assert.deepEqual(
        lists.indexes(1, undefined, first).toSorted((a, b) => a - b),
        beyond.toSorted((a, b) => a - b),
      )
      assert.equal(lists.indexes(1, 3, first).length, Math.min(3, beyond.length))
      lists.clear(1)
    }),
  )
})
