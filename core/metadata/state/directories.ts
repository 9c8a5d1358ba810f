/**
 * The names of all directories. Each entry carries a cookie: the log index of the command that made it, so
 * cookies rise, are never used twice, and need no counter of their own. Entries lie in columns, their names as
 * bytes beside, one index finds them by parent and name; each directory has them in the order of their cookies
 * (cookie-order.ts), so that a listing goes on anywhere and sorts nothing.
 */
import { assert } from '../../base/assert.ts'
import { NUL, type PackedRows } from '../../platform/packed-rows.ts'
import type { RowChange } from '../../platform/store.ts'
import { NAME_BYTES_MAX } from '../../wire/messages/common.ts'
import { metadataError } from '../errors.ts'
import { Column, NO_SLOT, Slots } from './columns/columns.ts'
import { CookieOrder } from './columns/cookie-order.ts'
import { hashOfBytes, NameBytes } from './columns/name-bytes.ts'
import { hashOfNumbers, SlotIndex } from './columns/slot-index.ts'
import type { ChangeTracked } from './table.ts'

const SLASH = 0x2f
const SPACE = 0x20

/** A copy. */
export interface DirectoryEntry {
  readonly name: string
  readonly inode: number
  /** Position in a listing. */
  readonly cookie: number
}

export interface Directory {
  readonly size: number
  /** Up to `limit` entries behind `cookie`, and whether these were the last. */
  list(cookie: number, limit: number): { entries: DirectoryEntry[]; end: boolean }
  /** In the order of their cookies. */
  entries(): Iterable<DirectoryEntry>
}

export class DirectoryTable implements ChangeTracked {
  readonly name = 'entries'
  readonly #parent = Column.ofNumbers()
  readonly #inode = Column.ofNumbers()
  readonly #cookie = Column.ofNumbers()
  readonly #nameCell = Column.ofUint32()
  readonly #nameLength = Column.ofBytes()
  readonly #names = new NameBytes()
  readonly #slots = new Slots(this.#nameCell)
  readonly #byName: SlotIndex
  readonly #orders = new Map<number, CookieOrder>()
  readonly #cookieOf = (slot: number): number => this.#cookie.get(slot)
  /** Row keys: parent/name. A name holds no slash. */
  readonly #changed = new Set<string>()
  #soughtParent = 0
  #soughtLength = 0
  /** The name that is looked for. No room for more than a name: what is longer is nowhere. */
  readonly #sought = Buffer.alloc(4 * (NAME_BYTES_MAX + 1))

  constructor() {
    this.#byName = new SlotIndex({
      hashOfSlot: (slot) => {
        const nameHash = this.#names.hash(this.#nameCell.get(slot), this.#nameLength.get(slot))
        return hashOfNumbers(this.#parent.get(slot), nameHash)
      },
      isSought: (slot) =>
        this.#nameLength.get(slot) === this.#soughtLength &&
        this.#parent.get(slot) === this.#soughtParent &&
        this.#names.equals(this.#nameCell.get(slot), this.#soughtLength, this.#sought),
    })
  }

  /** Undefined for a directory without entries. */
  get(parent: number): Directory | undefined {
    const order = this.#orders.get(parent)
    if (order === undefined) return undefined
    const entryOf = (slot: number): DirectoryEntry => this.#entryAt(slot)
    return {
      size: order.count,
      list(cookie, limit) {
        const entries: DirectoryEntry[] = []
        for (const slot of order.after(cookie)) {
          if (entries.length === limit) return { entries, end: false }
          entries.push(entryOf(slot))
        }
        return { entries, end: true }
      },
      *entries() {
        for (const slot of order.after(0)) yield entryOf(slot)
      },
    }
  }

  entry(parent: number, name: string): DirectoryEntry | undefined {
    const slot = this.#find(parent, name)
    return slot === NO_SLOT ? undefined : this.#entryAt(slot)
  }

  entryCount(parent: number): number {
    return this.#orders.get(parent)?.count ?? 0
  }

  add(parent: number, name: string, inode: number, cookie: number): void {
    this.#insert(parent, name, inode, cookie)
    this.#changed.add(`${parent}/${name}`)
  }

  /** The name stays in its place and leads to another inode. */
  replace(parent: number, entry: DirectoryEntry, inode: number): void {
    const slot = this.#find(parent, entry.name)
    assert(slot !== NO_SLOT, 'an entry that is replaced exists')
    this.#inode.set(slot, inode)
    this.#changed.add(`${parent}/${entry.name}`)
  }

  remove(parent: number, entry: DirectoryEntry): void {
    const order = this.#orders.get(parent)
    const slot = this.#find(parent, entry.name)
    assert(order !== undefined && slot !== NO_SLOT, 'an entry that is removed exists')
    order.remove(slot)
    if (order.count === 0) this.#orders.delete(parent)
    this.#byName.remove(slot)
    this.#names.free(this.#nameCell.get(slot), this.#nameLength.get(slot))
    this.#nameLength.set(slot, 0)
    this.#slots.free(slot)
    this.#changed.add(`${parent}/${entry.name}`)
  }

  loadRow(key: string, value: string): void {
    const slash = key.indexOf('/')
    const space = value.indexOf(' ')
    const name = key.slice(slash + 1)
    const numbers = [key.slice(0, slash), value.slice(0, space), value.slice(space + 1)].map(Number)
    const [parent = 0, inode = 0, cookie = 0] = numbers
    const isGood =
      slash > 0 &&
      space > 0 &&
      numbers.every((number) => Number.isSafeInteger(number)) &&
      name !== '' &&
      Buffer.byteLength(name) <= NAME_BYTES_MAX &&
      this.#find(parent, name) === NO_SLOT
    if (!isGood) throw metadataError('ROW_CORRUPT', `${this.name}/${key}`)
    this.#insert(parent, name, inode, cookie)
  }

  /** parent/name, inode cookie. */
  loadPacked(rows: PackedRows): boolean {
    const parent = rows.integer()
    if (parent < 0 || !rows.takes(SLASH)) return false
    const length = rows.bytes(this.#sought)
    const inode = rows.integer()
    if (length <= 0 || length > NAME_BYTES_MAX || inode < 0 || !rows.takes(SPACE)) return false
    const cookie = rows.integer()
    if (cookie < 0 || !rows.takes(NUL)) return false
    if (this.#findSought(parent, length) !== NO_SLOT) return false
    this.#insertSought(inode, cookie)
    return true
  }

  get changedCount(): number {
    return this.#changed.size
  }

  collectChanges(into: RowChange[]): void {
    for (const key of this.#changed) {
      const slash = key.indexOf('/')
      const entry = this.entry(Number(key.slice(0, slash)), key.slice(slash + 1))
      const value = entry === undefined ? null : `${entry.inode} ${entry.cookie}`
      into.push({ table: this.name, key, value })
    }
    this.#changed.clear()
  }

  *rows(): Iterable<readonly [string, string]> {
    for (const [parent, order] of this.#orders) {
      for (const slot of order.after(0)) {
        const { name, inode, cookie } = this.#entryAt(slot)
        yield [`${parent}/${name}`, `${inode} ${cookie}`]
      }
    }
  }

  #entryAt(slot: number): DirectoryEntry {
    return {
      name: this.#names.text(this.#nameCell.get(slot), this.#nameLength.get(slot)),
      inode: this.#inode.get(slot),
      cookie: this.#cookie.get(slot),
    }
  }

  #find(parent: number, name: string): number {
    return this.#findSought(parent, this.#sought.write(name))
  }

  /** The name is the first `length` bytes of `#sought`. */
  #findSought(parent: number, length: number): number {
    this.#soughtParent = parent
    this.#soughtLength = length
    if (length === 0 || length > NAME_BYTES_MAX) return NO_SLOT
    return this.#byName.find(hashOfNumbers(parent, hashOfBytes(this.#sought, 0, length)))
  }

  #insert(parent: number, name: string, inode: number, cookie: number): void {
    assert(this.#find(parent, name) === NO_SLOT, 'a name is added once')
    this.#insertSought(inode, cookie)
  }

  /** What was looked for, and not found. */
  #insertSought(inode: number, cookie: number): void {
    const parent = this.#soughtParent
    const length = this.#soughtLength
    const slot = this.#slots.take()
    this.#parent.set(slot, parent)
    this.#inode.set(slot, inode)
    this.#cookie.set(slot, cookie)
    this.#nameCell.set(slot, this.#names.add(this.#sought, length))
    this.#nameLength.set(slot, length)
    this.#byName.add(slot)
    let order = this.#orders.get(parent)
    if (order === undefined) {
      order = new CookieOrder(this.#cookieOf)
      this.#orders.set(parent, order)
    }
    order.add(slot)
  }
}
