/**
 * Inode rows as text (docs/formats/metadata.md). The chunk list is not in it: every row of the chunk table
 * names its inode and index, and loading rebuilds the list, so that an fsync of a large file writes one
 * short row. Placement objects are shared: most files have the same.
 */
import { NUL, type PackedRows, Sign } from '../../platform/packed-rows.ts'
import type { FileType, PlacementAttributes } from '../../wire/messages/common.ts'
import type { InodeFields } from './rows.ts'
import { jsonArray } from './table.ts'

/** Position = stored code; only ever appended to. */
export const fileTypes: readonly FileType[] = [
  'file',
  'directory',
  'symlink',
  'fifo',
  'socket',
  'block-device',
  'character-device',
]
const fixedFieldCount = 15
/** What the columns hold (inode-columns.ts), by position. */
const maxima: readonly (readonly [position: number, max: number])[] = [
  [1, 0xffff],
  ...[2, 3, 4, 8, 10, 12].map((position) => [position, 0xffff_ffff] as const),
]

type Mutable<Type> = { -readonly [Key in keyof Type]: Type[Key] }

interface OptionalFields {
  t?: string | undefined
  p?: PlacementAttributes | undefined
  x?: [string, string][] | undefined
  z?: number | undefined
  s?: number | undefined
}

export function encodeInode(row: InodeFields): string {
  const fields: unknown[] = [
    fileTypes.indexOf(row.type),
    row.mode,
    row.uid,
    row.gid,
    row.links,
    row.size,
    row.device,
    row.accessSeconds,
    row.accessNanoseconds,
    row.modifySeconds,
    row.modifyNanoseconds,
    row.changeSeconds,
    row.changeNanoseconds,
    row.generation,
    row.parent,
  ]
  const hasOptional =
    row.target !== undefined ||
    row.placement !== undefined ||
    row.extended !== undefined ||
    row.zeroFrom !== undefined ||
    row.sizeLimit !== undefined
  if (hasOptional) {
    const optional: OptionalFields = {
      t: row.target,
      p: row.placement === undefined ? undefined : internPlacement(row.placement),
      x: row.extended === undefined ? undefined : Object.entries(row.extended).toSorted(byName),
      z: row.zeroFrom,
      s: row.sizeLimit,
    }
    fields.push(optional)
  }
  return JSON.stringify(fields)
}

function byName(left: [string, string], right: [string, string]): number {
  return left[0] < right[0] ? -1 : 1
}

export function decodeInode(value: unknown, inode: number): InodeFields {
  const fields = jsonArray(value, fixedFieldCount)
  const numbers = fields.slice(0, fixedFieldCount) as number[]
  if (!numbers.every((number) => Number.isSafeInteger(number))) throw new Error('a field is no integer')
  const row = fixedFields(inode, numbers)
  const optional = fields[fixedFieldCount] as OptionalFields | undefined
  if (optional === undefined) return row
  if (optional.t !== undefined) row.target = optional.t
  if (optional.p !== undefined) row.placement = internPlacement(optional.p)
  if (optional.x !== undefined) row.extended = extendedRecord(optional.x)
  if (optional.z !== undefined) row.zeroFrom = optional.z
  if (optional.s !== undefined) row.sizeLimit = optional.s
  return row
}

function fixedFields(inode: number, numbers: readonly number[]): Mutable<InodeFields> {
  const at = (position: number): number => numbers[position] ?? 0
  const type = fileTypes[at(0)]
  if (type === undefined) throw new Error('unknown file type')
  for (const [position, max] of maxima)
    if (at(position) < 0 || at(position) > max) throw new Error('a field is too large')
  return {
    inode,
    type,
    mode: at(1),
    uid: at(2),
    gid: at(3),
    links: at(4),
    size: at(5),
    device: at(6),
    accessSeconds: at(7),
    accessNanoseconds: at(8),
    modifySeconds: at(9),
    modifyNanoseconds: at(10),
    changeSeconds: at(11),
    changeNanoseconds: at(12),
    generation: at(13),
    parent: at(14),
  }
}

/** Reads rows of inodes that have nothing optional, or a placement only: from the bytes, because nearly all are so. */
export class PackedInodes {
  readonly #numbers: number[] = Array.from({ length: fixedFieldCount }, () => 0)
  /** What followed the numbers of the last row with a placement: that of the next is nearly always the same. */
  #tail = Buffer.alloc(0)
  #placement: PlacementAttributes | undefined = undefined

  /** Null for a row of another form. Throws what `decodeInode` does. */
  read(rows: PackedRows): InodeFields | null {
    const inode = rows.integer()
    if (inode < 0 || !rows.takes(NUL) || !rows.takes(Sign.open)) return null
    for (let position = 0; position < fixedFieldCount; position++) {
      if (position > 0 && !rows.takes(Sign.comma)) return null
      const number = rows.integer()
      // Times before 1970 are not worth the trouble.
      if (number < 0) return null
      this.#numbers[position] = number
    }
    const row = fixedFields(inode, this.#numbers)
    if (rows.takes(Sign.close)) return rows.takes(NUL) ? row : null
    if (!this.#readPlacement(rows)) return null
    row.placement = this.#placement
    return row
  }

  #readPlacement(rows: PackedRows): boolean {
    if (this.#tail.length > 0 && rows.takesAll(this.#tail)) return true
    const tail = rows.text()
    const [, optional = {}] = JSON.parse(`[0${tail}`) as [number, OptionalFields?]
    const { p, ...others } = optional
    if (p === undefined || Object.keys(others).length > 0) return false
    this.#placement = internPlacement(p)
    this.#tail = Buffer.from(`${tail}\0`)
    return true
  }
}

/** Without a prototype: attribute names come from people. */
export function extendedRecord(pairs: Iterable<readonly [string, string]>): Record<string, string> {
  const record = Object.create(null) as Record<string, string>
  for (const [name, value] of pairs) record[name] = value
  return record
}

/** At most 17 x 17 x 7 x 6 different ones exist: this is bounded, and a code fits 16 bits. */
const placements: PlacementAttributes[] = []
const placementCodes = new Map<string, number>()
const codeOfInterned = new WeakMap<PlacementAttributes, number>()

/** One frozen object per value, fields in one order. */
export function internPlacement(attributes: PlacementAttributes): PlacementAttributes {
  return placementOfCode(placementCode(attributes)) ?? attributes
}

/** A number for these attributes, of this process only; 0 for none. */
export function placementCode(attributes: PlacementAttributes | undefined): number {
  if (attributes === undefined) return 0
  const interned = codeOfInterned.get(attributes)
  if (interned !== undefined) return interned
  const ordered: PlacementAttributes = {}
  if (attributes.replicasNormal !== undefined) ordered.replicasNormal = attributes.replicasNormal
  if (attributes.replicasMinimum !== undefined) ordered.replicasMinimum = attributes.replicasMinimum
  if (attributes.failureDomain !== undefined) ordered.failureDomain = attributes.failureDomain
  if (attributes.tier !== undefined) ordered.tier = attributes.tier
  const key = JSON.stringify(ordered)
  const known = placementCodes.get(key)
  if (known !== undefined) return known
  const code = placements.push(Object.freeze(ordered))
  placementCodes.set(key, code)
  codeOfInterned.set(ordered, code)
  return code
}

export function placementOfCode(code: number): PlacementAttributes | undefined {
  return placements[code - 1]
}
