/**
 * Takes in the copy of a store that the leader sends: pieces in order into a file beside the store, checked as a
 * whole, cut to what is committed, and then announced to consensus, which says whether it is installed. One at
 * a time: a new one takes the place of one that was broken off, but never of one that is being installed, or a
 * part of it would become the store.
 */
import { crc32c } from '@node-rs/crc32'
import { CairnError } from '../../base/errors.ts'
import type { SnapshotFiles } from '../../platform/snapshot-files.ts'
import { type Message, parseMessage, type Snapshot } from '../../raft/index.ts'
import type { MemberMethods } from '../../wire/messages/quorum.ts'
import type { ParamsOf } from '../../wire/messages/method.ts'
import type { Peer } from '../../wire/types.ts'
import { configurationText } from './recovery.ts'
import { describeCopy } from './snapshot-sender.ts'

/** A member that cannot take in a copy cannot follow: it ends and says why, instead of being offered another. */
export const fatalToReceivers: readonly string[] = ['VERSION_TOO_OLD', 'STORE_FAILED']

export class SnapshotReceiver {
  readonly #files: SnapshotFiles
  readonly #isInstalling: () => boolean
  #peer: Peer | null = null
  #sizeBytes = 0
  #checksum = 0
  #isBusy = false

  constructor(files: SnapshotFiles, isInstalling: () => boolean) {
    this.#files = files
    this.#isInstalling = isInstalling
  }

  /** Throws REFUSED when it does not continue what came before on this connection. */
  async piece({ offset, bytes }: ParamsOf<MemberMethods, 'snapshot.piece'>, peer: Peer): Promise<void> {
    if (this.#isBusy || this.#isInstalling())
      throw new CairnError('OVERLOADED', 'another piece is being written, or a copy is being installed', {
        retryable: true,
      })
    if (offset === 0) {
      this.#peer = peer
      this.#sizeBytes = 0
      this.#checksum = 0
    }
    if (peer !== this.#peer || offset !== this.#sizeBytes) throw outOfOrder()
    const owned = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
    await this.#exclusively(() => this.#files.write(offset, owned))
    this.#sizeBytes += owned.length
    this.#checksum = crc32c(owned, this.#checksum)
  }

  /** The file is whole and durable: the message to step. Throws when it is not what was sent. */
  async end(params: ParamsOf<MemberMethods, 'snapshot.end'>, peer: Peer): Promise<Message> {
    const message = parseMessage(params.head)
    if (message.type !== 'snapshot' || peer !== this.#peer || this.#isBusy) throw outOfOrder()
    this.#peer = null
    if (params.sizeBytes !== this.#sizeBytes || params.checksum !== this.#checksum)
      throw new CairnError('BAD_CHECKSUM', 'the copy is not what was sent')
    await this.#exclusively(() => this.#prepare(message.snapshot))
    return message
  }

  /** Rule L4: of the log only what the snapshot covers stays. */
  async #prepare(snapshot: Snapshot): Promise<void> {
    await this.#files.sync()
    const copy = await this.#files.open('incoming')
    try {
      const { index, term, configuration } = await describeCopy(copy)
      const isSame = configurationText(configuration) === configurationText(snapshot.configuration)
      if (index !== snapshot.index || term !== snapshot.term || !isSame)
        throw new CairnError(
          'BAD_MESSAGE',
          `the copy is of index ${index}, term ${term}, not ${snapshot.index}`,
        )
      await copy.commit({ entries: [], rows: [], truncateFrom: index + 1, appliedIndex: index })
    } finally {
      await copy.close()
    }
  }

  async #exclusively(work: () => Promise<void>): Promise<void> {
    this.#isBusy = true
    try {
      await work()
    } finally {
      this.#isBusy = false
    }
  }
}

function outOfOrder(): CairnError {
  return new CairnError('REFUSED', 'a piece that does not follow the one before: begin anew')
}
