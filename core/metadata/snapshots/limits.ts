/** Limits of snapshots. */

export const SNAPSHOTS_PER_FILE_MAX = 256
/** Of all files together. */
export const SNAPSHOT_COUNT_MAX = 100_000
/** Indexes that one command takes over: some milliseconds. A longer list goes in steps. */
export const COPY_STEP_INDEXES_MAX = 1_024
/** Lists that are being taken over at once. */
export const COPY_COUNT_MAX = 64
