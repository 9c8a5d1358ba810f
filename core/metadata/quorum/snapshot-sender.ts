/**
 * Sends a copy of the whole store to a member that lacks more than the log holds: one member at a time, in
 * bounded pieces, each answered, and slowly enough that requests do not feel it. Whatever happens, consensus is
 * told once how it ended, and then goes on by itself. Term and vote are not in the copy (rule L4).
 */
import { crc32c } from '@node-rs/crc32'
import { CairnError } from '../../base/errors.ts'
import type { Clock } from '../../platform/clock.ts'
import type { Logger } from '../../platform/logger.ts'
import type { SnapshotFiles } from '../../platform/snapshot-files.ts'
import type { Store } from '../../platform/store.ts'
import type { MemberId, Snapshot } from '../../raft/index.ts'
import { memberMethods } from '../../wire/messages/quorum.ts'
import type { Peer } from '../../wire/types.ts'
import type { RaftLog } from './raft-log.ts'
import { FORMAT_KEY, META_TABLE, parseFormat } from '../state/feature-levels.ts'
import { CONFIGURATION_KEY, parseConfiguration } from './recovery.ts'

const PIECE_BYTES = 256 * 1024
/** At most about 60 MiB/s. */
const PIECE_PAUSE_MS = 4
const PIECE_TIMEOUT_MS = 10_000
/** The receiver syncs the file and looks into it. */
const END_TIMEOUT_MS = 60_000
/** After a copy that was not sent, doubled with each: every attempt writes all of the metadata once. */
const RETRY_MS = 1_000
const RETRY_MS_MAX = 60_000

export interface SnapshotSenderParts {
  readonly store: Store
  readonly log: RaftLog
  readonly files: SnapshotFiles
  readonly clock: Clock
  readonly logger: Logger
  readonly peerOf: (member: MemberId) => Peer | null
  /** An attempt came to nothing; the next one follows by itself. */
  readonly notSent: (member: MemberId, reason: string) => void
}

export class SnapshotSender {
  readonly #parts: SnapshotSenderParts
  readonly #waiting = new Set<MemberId>()
  /** Attempts in a row that came to nothing; bounded by the ids of members. */
  readonly #failureCounts = new Map<MemberId, number>()
  #isSending = false
  /** The member that gets a copy now; 0: none. */
  #receiver: MemberId = 0
  #isClosed = false

  constructor(parts: SnapshotSenderParts) {
    this.#parts = parts
  }

  send(member: MemberId): void {
    this.#waiting.add(member)
    if (!this.#isSending) void this.#run()
  }

  close(): void {
    this.#isClosed = true
    this.#waiting.clear()
  }

  async #run(): Promise<void> {
    const { log, logger, files } = this.#parts
    this.#isSending = true
    for (const member of this.#waiting) {
      this.#waiting.delete(member)
      log.holdWindow(true)
      this.#receiver = member
      try {
        const receivedIndex = await this.#sendTo(member)
        this.#failureCounts.delete(member)
        if (!this.#isClosed) log.reportSnapshot(member, receivedIndex)
      } catch (error) {
        logger.warn('a copy of the metadata was not sent', { member, reason: String(error) })
        if (!this.#isClosed)
          this.#parts.notSent(member, error instanceof Error ? error.message : String(error))
        this.#reportFailureLater(member)
      }
      this.#receiver = 0
      log.holdWindow(false)
      if (this.#isClosed) break
    }
    await files
      .drop('outgoing')
      .catch((error: unknown) => logger.warn('copy not removed', { error: String(error) }))
    this.#isSending = false
  }

  /** Until it is told, consensus asks for no other copy. */
  #reportFailureLater(member: MemberId): void {
    const { clock, log } = this.#parts
    const count = this.#failureCounts.get(member) ?? 0
    this.#failureCounts.set(member, count + 1)
    clock.setTimer(Math.min(RETRY_MS * 2 ** count, RETRY_MS_MAX), () => {
      // A master that came back may have asked again meanwhile.
      const isAskedAgain = this.#receiver === member || this.#waiting.has(member)
      if (!this.#isClosed && !isAskedAgain) log.reportSnapshot(member, null)
    })
  }

  async #sendTo(member: MemberId): Promise<number> {
    const { store, files, log, logger } = this.#parts
    const peer = this.#parts.peerOf(member)
    if (peer === null) throw new CairnError('DISCONNECTED', `MDS#${member} cannot be reached`)
    await files.drop('outgoing')
    await store.snapshot(files.outgoingPath)
    const snapshot = await this.#describe()
    logger.info('sending a copy of the metadata', { member, index: snapshot.index })
    const caller = peer.caller(memberMethods)
    let checksum = 0
    let offset = 0
    for (;;) {
      const bytes = await files.read(offset, PIECE_BYTES)
      if (this.#isClosed) throw new CairnError('REFUSED', 'this metadata server is stopping')
      if (bytes.length === 0) break
      checksum = crc32c(bytes, checksum)
      await caller.call('snapshot.piece', { offset, bytes }, { timeoutMs: PIECE_TIMEOUT_MS })
      offset += bytes.length
      await this.#pause()
    }
    // Made last: it counts as a sign of life of this very moment.
    const head = log.snapshotMessage(member, snapshot)
    if (head === null) throw new CairnError('NOT_MASTER', 'this member does not lead any more')
    await caller.call('snapshot.end', { sizeBytes: offset, checksum, head }, { timeoutMs: END_TIMEOUT_MS })
    logger.info('a copy of the metadata was received', { member, index: snapshot.index, bytes: offset })
    return snapshot.index
  }

  async #describe(): Promise<Snapshot> {
    const copy = await this.#parts.files.open('outgoing')
    try {
      return await describeCopy(copy)
    } finally {
      await copy.close()
    }
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => void this.#parts.clock.setTimer(PIECE_PAUSE_MS, resolve))
  }
}

/** What a copy is of. Throws when it is of nothing, and VERSION_TOO_OLD. */
export async function describeCopy(copy: Store): Promise<Snapshot> {
  const { appliedIndex: index, appliedTerm: term, rows } = await copy.glance(META_TABLE)
  parseFormat(rows.get(FORMAT_KEY))
  const configuration = rows.get(CONFIGURATION_KEY)
  if (index === 0 || term === 0 || configuration === undefined)
    throw new CairnError('STORE_FORMAT', `a copy of index ${index}, term ${term} cannot be used`)
  return { index, term, configuration: parseConfiguration(configuration) }
}
