/**
 * Ends inodes that have no name, are open in no session and have no lease. `run` is called now and then by
 * the master; it proposes one command of bounded size at a time, and a bounded number in a row. Waits until
 * every session of the state has said what it has open: after a restart nobody knows better (rule T2).
 */
import type { ReplicatedLog } from '../log/replicated-log.ts'
import type { MetadataState } from '../state/state.ts'
import type { OpenFiles } from './services/open-files.ts'

export const COLLECT_INODES_MAX = 256
/** Each condemns its replicas: this is some milliseconds. A file with more goes in parts. */
export const COLLECT_CHUNKS_MAX = 512
/** From here on files go in parts (state/feature-levels.ts). */
const PARTS_LEVEL = 2
/** Many files deleted in a row must not wait longer than their deletion took. */
const BATCHES_PER_RUN_MAX = 32

export class OrphanCollector {
  private readonly state: MetadataState
  private readonly log: ReplicatedLog
  private readonly openFiles: OpenFiles
  private isRunning = false

  constructor(state: MetadataState, log: ReplicatedLog, openFiles: OpenFiles) {
    this.state = state
    this.log = log
    this.openFiles = openFiles
  }

  /** Resolves with how many inodes ended; 0 also when a run is under way. */
  async run(): Promise<number> {
    if (this.isRunning) return 0
    this.isRunning = true
    try {
      let count = 0
      for (let batch = 0; batch < BATCHES_PER_RUN_MAX; batch++) {
        const { collected, isMore } = await this.collect()
        count += collected
        if (!isMore) break
      }
      return count
    } finally {
      this.isRunning = false
    }
  }

  private async collect(): Promise<{ readonly collected: number; readonly isMore: boolean }> {
    const nothing = { collected: 0, isMore: false }
    const { state, log } = this
    if (state.orphans.size === 0 || !log.isReady || !this.isInformed()) return nothing
    const inodes: number[] = []
    let partly: { inode: number; indexes: number[] } | undefined
    let chunkCount = 0
    let isMore = false
    for (const inode of state.orphans) {
      if (this.openFiles.isOpen(inode) || state.leaseByInode.has(inode) || state.isFrozen(inode)) continue
      const chunks = state.inodes.get(inode)?.chunks
      const size = chunks?.size ?? 0
      isMore = inodes.length === COLLECT_INODES_MAX || chunkCount + size > COLLECT_CHUNKS_MAX
      if (isMore) {
        const isFirst = inodes.length === 0 && chunks !== undefined
        if (isFirst && state.level.inForce >= PARTS_LEVEL)
          partly = { inode, indexes: chunks.indexes(COLLECT_CHUNKS_MAX) }
        else if (isFirst) inodes.push(inode)
        break
      }
      inodes.push(inode)
      chunkCount += size
    }
    if (inodes.length === 0 && partly === undefined) return nothing
    const command = { type: 'file.collect', inodes, ...(partly === undefined ? {} : { partly }) } as const
    const result = await log.propose(command)
    if (!('ok' in result)) return nothing
    const collected = result.ok.collected.length
    return { collected, isMore: isMore && (collected > 0 || partly !== undefined) }
  }

  private isInformed(): boolean {
    for (const session of this.state.sessions.keys()) {
      if (!this.openFiles.hasDeclared(session)) return false
    }
    return true
  }
}
