/**
 * Ends inodes that have no name, are open in no session and have no lease. `run` is called now and then by
 * the master; it proposes one command of bounded size at a time, and a bounded number in a row. Waits until
 * every session of the state has said what it has open: after a restart nobody knows better (rule T2).
 */
import type { ReplicatedLog } from '../log/replicated-log.ts'
import type { MetadataState } from '../state/state.ts'
import type { OpenFiles } from './open-files.ts'

export const COLLECT_INODES_MAX = 256
/** Many files deleted in a row must not wait longer than their deletion took. */
const BATCHES_PER_RUN_MAX = 16

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
        const collected = await this.collect()
        count += collected
        if (collected < COLLECT_INODES_MAX) break
      }
      return count
    } finally {
      this.isRunning = false
    }
  }

  private async collect(): Promise<number> {
    if (this.state.orphans.size === 0 || !this.log.isReady || !this.isInformed()) return 0
    const inodes: number[] = []
    for (const inode of this.state.orphans) {
      if (inodes.length === COLLECT_INODES_MAX) break
      if (!this.openFiles.isOpen(inode) && !this.state.leaseByInode.has(inode)) inodes.push(inode)
    }
    if (inodes.length === 0) return 0
    const result = await this.log.propose({ type: 'file.collect', inodes })
    return 'ok' in result ? result.ok.collected.length : 0
  }

  private isInformed(): boolean {
    for (const session of this.state.sessions.keys()) {
      if (!this.openFiles.hasDeclared(session)) return false
    }
    return true
  }
}
