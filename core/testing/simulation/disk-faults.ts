/** What a simulated disk can be made to do wrong; all off at first. */
export interface DiskFaults {
  /** Everything fails with DISK_IO from now on. */
  dead: boolean
  /** The next so many operations of the kind fail with DISK_IO. */
  failReads: number
  failWrites: number
  failSyncs: number
  /** The next so many syncs find no room for what was written (delayed allocation). */
  failSyncsFull: number
  /** The next so many writes are acknowledged and forgotten, or land one page further. */
  loseWrites: number
  misdirectWrites: number
  /** Callbacks come this much later; needs a clock. */
  delayMs: number
  /** The same for syncs alone, as on a disk with a fast cache in front. */
  syncDelayMs: number
  /** Callbacks wait until this is false again: call `releaseHanging`. */
  hanging: boolean
  /** Rest of operations (writes and syncs) until the disk stands still for ever; -1: never. */
  stopAfter: number
}

export function noDiskFaults(): DiskFaults {
  return {
    dead: false,
    failReads: 0,
    failWrites: 0,
    failSyncs: 0,
    failSyncsFull: 0,
    loseWrites: 0,
    misdirectWrites: 0,
    delayMs: 0,
    syncDelayMs: 0,
    hanging: false,
    stopAfter: -1,
  }
}
