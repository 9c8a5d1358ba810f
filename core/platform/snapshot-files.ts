/**
 * Copies of the store on their way between members: one that is sent, one that is received. Beside the store,
 * because the received one takes its place. `node/snapshot-files.ts` is the real one, the simulator has a model.
 */
import type { Store } from './store.ts'

export type SnapshotSide = 'outgoing' | 'incoming'

export interface SnapshotFiles {
  /** Where `Store.snapshot` is to put the copy that is sent. */
  readonly outgoingPath: string
  /** The copy as a store. Close it before anything else is done with it. */
  open(side: SnapshotSide): Promise<Store>
  /** Of the outgoing copy; fewer bytes than asked for at its end, none behind it. */
  read(offset: number, length: number): Promise<Buffer>
  /** Of the incoming copy; offset 0 begins a new one. `borrowedBytes` may change when it resolves. */
  write(offset: number, borrowedBytes: Buffer): Promise<void>
  /** All that was written is durable. */
  sync(): Promise<void>
  /** The incoming copy takes the place of the store, which has been closed: wholly or, after a crash, not at all. */
  install(): Promise<Store>
  drop(side: SnapshotSide): Promise<void>
}
