/**
 * Replicas that wait for deletion (rule G1), by chunk and server. After a mass deletion there are millions, so they
 * lie in columns, about 35 bytes each: as objects in a map they took 400, and the map stopped everything when it
 * grew. Each has a serial number that rises with the time when it was condemned; that is soft, for whoever counts
 * a grace.
 */
import type { PackedRows } from '../../platform/packed-rows.ts'
import { NUL, Sign } from '../../platform/packed-rows.ts'
import type { RowChange } from '../../platform/store.ts'
import { metadataError } from '../errors.ts'
import { Column, NO_SLOT, Slots } from './columns/columns.ts'
import { hashOfNumbers, SlotIndex } from './columns/slot-index.ts'
import type { CondemnedRow } from './rows.ts'
import { type ChangeTracked, jsonArray } from './table.ts'

const SLASH = 0x2f
const UINT32_MAX = 0xffff_ffff
/** No id, not even one that makes no sense. */
const FREE = -1

export class CondemnedTable implements ChangeTracked {
  readonly name = 'condemned'
  /** FREE in a free slot. */
  readonly #chunk = Column.ofNumbers()
  readonly #server = Column.ofUint32()
  readonly #versionMax = Column.ofNumbers()
  readonly #serial = Column.ofNumbers()
  readonly #slots = new Slots(this.#server)
  readonly #byReplica: SlotIndex
  readonly #changed = new Set<string>()
  #lastSerial = 0
  #soughtChunk = 0
  #soughtServer = 0

  constructor() {
    this.#byReplica = new SlotIndex({
      hashOfSlot: (slot) => hashOfNumbers(this.#chunk.get(slot), this.#server.get(slot)),
      isSought: (slot) =>
        this.#chunk.get(slot) === this.#soughtChunk && this.#server.get(slot) === this.#soughtServer,
    })
  }

  get size(): number {
    return this.#slots.count
  }

  get changedCount(): number {
    return this.#changed.size
  }

  /** Of the one that was condemned last. */
  get lastSerial(): number {
    return this.#lastSerial
  }

  /** What the columns take, for tests of the memory goal. */
  get byteLength(): number {
    const columns = [this.#chunk, this.#server, this.#versionMax, this.#serial]
    return columns.reduce((bytes, column) => bytes + column.byteLength, this.#byReplica.byteLength)
  }

  has(chunk: number, server: number): boolean {
    return this.#find(chunk, server) !== NO_SLOT
  }

  /** The highest version that may be deleted there; 0 when it is not condemned. */
  versionMaxOf(chunk: number, server: number): number {
    const slot = this.#find(chunk, server)
    return slot === NO_SLOT ? 0 : this.#versionMax.get(slot)
  }

  set({ chunk, server, versionMax }: CondemnedRow): void {
    this.#put(chunk, server, versionMax)
    this.#changed.add(keyOf(chunk, server))
  }

  delete(chunk: number, server: number): void {
    const slot = this.#find(chunk, server)
    if (slot === NO_SLOT) return
    this.#byReplica.remove(slot)
    this.#chunk.set(slot, FREE)
    this.#slots.free(slot)
    this.#changed.add(keyOf(chunk, server))
  }

  /**
   * Visits the rows in up to `slotCount` places from `fromSlot` on and returns where to go on, or -1 at the end.
   * What is condemned meanwhile may be missed, none is seen twice.
   */
  scan(
    fromSlot: number,
    slotCount: number,
    visit: (chunk: number, server: number, versionMax: number, serial: number) => void,
  ): number {
    const end = Math.min(this.#slots.limit, fromSlot + slotCount)
    for (let slot = fromSlot; slot < end; slot++) {
      const chunk = this.#chunk.get(slot)
      if (chunk === FREE) continue
      visit(chunk, this.#server.get(slot), this.#versionMax.get(slot), this.#serial.get(slot))
    }
    return end >= this.#slots.limit ? -1 : end
  }

  loadRow(key: string, value: string): void {
    try {
      const [chunk = 0, server = 0, versionMax = 0] = (jsonArray(JSON.parse(value), 3) as number[]).map(
        Number,
      )
      const isGood = isId(chunk) && isUint32(server) && isId(versionMax)
      if (!isGood || keyOf(chunk, server) !== key) throw new Error('the row has the wrong form')
      this.#put(chunk, server, versionMax)
    } catch (error) {
      throw metadataError('ROW_CORRUPT', `${this.name}/${key}`, error)
    }
  }

  loadPacked(rows: PackedRows): boolean {
    const chunk = rows.integer()
    if (chunk < 0 || !rows.takes(SLASH)) return false
    const server = rows.integer()
    if (!isUint32(server) || !rows.takes(NUL) || !rows.takes(Sign.open)) return false
    if (rows.integer() !== chunk || !rows.takes(Sign.comma)) return false
    if (rows.integer() !== server || !rows.takes(Sign.comma)) return false
    const versionMax = rows.integer()
    if (versionMax < 0 || !rows.takes(Sign.close) || !rows.takes(NUL)) return false
    this.#put(chunk, server, versionMax)
    return true
  }

  collectChanges(into: RowChange[]): void {
    for (const key of this.#changed) {
      const [chunk = 0, server = 0] = key.split('/').map(Number)
      const slot = this.#find(chunk, server)
      const value = slot === NO_SLOT ? null : JSON.stringify([chunk, server, this.#versionMax.get(slot)])
      into.push({ table: this.name, key, value })
    }
    this.#changed.clear()
  }

  *rows(): Iterable<readonly [string, string]> {
    for (let slot = 0; slot < this.#slots.limit; slot++) {
      const chunk = this.#chunk.get(slot)
      if (chunk === FREE) continue
      const server = this.#server.get(slot)
      yield [keyOf(chunk, server), JSON.stringify([chunk, server, this.#versionMax.get(slot)])]
    }
  }

  #find(chunk: number, server: number): number {
    this.#soughtChunk = chunk
    this.#soughtServer = server
    return this.#byReplica.find(hashOfNumbers(chunk, server))
  }

  #put(chunk: number, server: number, versionMax: number): void {
    let slot = this.#find(chunk, server)
    if (slot === NO_SLOT) {
      slot = this.#slots.take()
      this.#chunk.set(slot, chunk)
      this.#server.set(slot, server)
      this.#serial.set(slot, ++this.#lastSerial)
      this.#byReplica.add(slot)
    }
    this.#versionMax.set(slot, versionMax)
  }
}

function keyOf(chunk: number, server: number): string {
  return `${chunk}/${server}`
}

function isId(number: number): boolean {
  return Number.isSafeInteger(number) && number >= 0
}

function isUint32(number: number): boolean {
  return isId(number) && number <= UINT32_MAX
}
