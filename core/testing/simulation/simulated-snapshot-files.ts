/** A model of SnapshotFiles (core/platform/snapshot-files.ts) over the contents of a simulated store. */
import { present } from '../../base/assert.ts'
import type { SnapshotFiles, SnapshotSide } from '../../platform/snapshot-files.ts'
import type { Store } from '../../platform/store.ts'
import { SimulatedStore, SimulatedStoreContents } from './simulated-store.ts'

interface Packed {
  readonly rows: [string, [string, string][]][]
  readonly entries: [number, number, string][]
  readonly appliedIndex: number
}

export class SimulatedSnapshotFiles implements SnapshotFiles {
  readonly outgoingPath = 'outgoing'
  readonly #contents: SimulatedStoreContents
  readonly #snapshots: Map<string, SimulatedStoreContents>
  readonly #reopen: () => Store
  #outgoingBytes: Buffer | null = null
  #incomingBytes = Buffer.alloc(0)
  #incoming: SimulatedStoreContents | null = null

  /** `snapshots`: where the store puts its copies. `reopen`: a new handle on `contents`. */
  constructor(
    contents: SimulatedStoreContents,
    snapshots: Map<string, SimulatedStoreContents>,
    reopen: () => Store,
  ) {
    this.#contents = contents
    this.#snapshots = snapshots
    this.#reopen = reopen
  }

  open(side: SnapshotSide): Promise<Store> {
    if (side === 'outgoing') return Promise.resolve(new SimulatedStore(this.#outgoing()))
    this.#incoming ??= unpack(this.#incomingBytes)
    return Promise.resolve(new SimulatedStore(this.#incoming))
  }

  read(offset: number, length: number): Promise<Buffer> {
    this.#outgoingBytes ??= pack(this.#outgoing())
    return Promise.resolve(this.#outgoingBytes.subarray(offset, offset + length))
  }

  write(offset: number, borrowedBytes: Buffer): Promise<void> {
    this.#incoming = null
    this.#incomingBytes = Buffer.concat([this.#incomingBytes.subarray(0, offset), borrowedBytes])
    return Promise.resolve()
  }

  sync(): Promise<void> {
    return Promise.resolve()
  }

  install(): Promise<Store> {
    const incoming = present(this.#incoming, 'only what was looked at is installed')
    this.#contents.replaceWith(incoming)
    return Promise.resolve(this.#reopen())
  }

  drop(side: SnapshotSide): Promise<void> {
    if (side === 'outgoing') {
      this.#snapshots.delete(this.outgoingPath)
      this.#outgoingBytes = null
    } else this.#incomingBytes = Buffer.alloc(0)
    return Promise.resolve()
  }

  #outgoing(): SimulatedStoreContents {
    return present(this.#snapshots.get(this.outgoingPath), 'a copy was made')
  }
}

function pack({ rows, entries, appliedIndex }: SimulatedStoreContents): Buffer {
  const packed: Packed = {
    rows: [...rows].map(([table, keys]) => [table, [...keys]]),
    entries: [...entries.values()].map(({ index, term, data }) => [index, term, data.toString('base64')]),
    appliedIndex,
  }
  return Buffer.from(JSON.stringify(packed))
}

function unpack(bytes: Buffer): SimulatedStoreContents {
  const { rows, entries, appliedIndex } = JSON.parse(bytes.toString()) as Packed
  const contents = new SimulatedStoreContents()
  for (const [table, keys] of rows) contents.rows.set(table, new Map(keys))
  for (const [index, term, data] of entries)
    contents.entries.set(index, { index, term, data: Buffer.from(data, 'base64') })
  contents.appliedIndex = appliedIndex
  return contents
}
