/**
 * Gives a consistent copy of the store to an administrator while everything goes on: one at a time, in pieces,
 * each asked for. One that nobody asks for any more is dropped.
 */
import { BACKUP_PIECE_BYTES } from '../../quorum/backup-format.ts'
import { describeCopy } from '../../quorum/snapshot-sender.ts'
import type { Timer } from '../../../platform/clock.ts'
import type { SnapshotFiles } from '../../../platform/snapshot-files.ts'
import type { Store } from '../../../platform/store.ts'
import type { adminMethods } from '../../../wire/messages/metadata.ts'
import type { ParamsOf, ResultOf } from '../../../wire/messages/method.ts'
import { generationOf } from '../../chunks/administration.ts'
import type { Master } from '../../control/servers/master.ts'
import { wireError } from '../../errors.ts'

type AdminMethods = typeof adminMethods

const IDLE_MS = 60_000

export interface BackupSource {
  readonly store: Pick<Store, 'snapshot'>
  /** A place for the copy. */
  readonly files: SnapshotFiles
}

export class BackupService {
  readonly #master: Master
  readonly #source: BackupSource | null
  #current = 0
  #lastId = 0
  #timer: Timer | null = null
  #isBusy = false

  constructor(master: Master, source: BackupSource | null) {
    this.#master = master
    this.#source = source
  }

  async begin(): Promise<ResultOf<AdminMethods, 'mds.backup'>> {
    const { store, files } = this.#sourceOrRefuse()
    if (this.#current !== 0) throw wireError('EBUSY', 'another copy of the metadata is being fetched')
    const backup = ++this.#lastId
    this.#current = backup
    this.#rest(backup)
    try {
      await this.#exclusively(async () => {
        await files.drop('outgoing')
        await store.snapshot(files.outgoingPath)
      })
      const copy = await files.open('outgoing')
      const { index, term } = await describeCopy(copy).finally(() => copy.close())
      return { backup, index, term, generation: generationOf(this.#master.state) }
    } catch (error) {
      this.#forget()
      throw error
    }
  }

  async piece({
    backup,
    offset,
  }: ParamsOf<AdminMethods, 'mds.backupPiece'>): Promise<ResultOf<AdminMethods, 'mds.backupPiece'>> {
    const { files } = this.#sourceOrRefuse()
    if (backup !== this.#current) throw wireError('NOT_FOUND', 'this copy is not there any more: begin anew')
    this.#rest(backup)
    return { bytes: await this.#exclusively(() => files.read(offset, BACKUP_PIECE_BYTES)) }
  }

  async end({ backup }: ParamsOf<AdminMethods, 'mds.backupEnd'>): Promise<Record<string, never>> {
    if (backup !== this.#current) return {}
    this.#forget()
    await this.#sourceOrRefuse().files.drop('outgoing')
    return {}
  }

  #sourceOrRefuse(): BackupSource {
    if (this.#source === null) throw wireError('REFUSED', 'this metadata server makes no copies')
    return this.#source
  }

  async #exclusively<T>(work: () => Promise<T>): Promise<T> {
    if (this.#isBusy) throw wireError('EBUSY', 'another copy of the metadata is being fetched')
    this.#isBusy = true
    try {
      return await work()
    } finally {
      this.#isBusy = false
    }
  }

  /** Whoever began it may have gone. */
  #rest(backup: number): void {
    this.#timer?.cancel()
    this.#timer = this.#master.after(IDLE_MS, () => {
      this.end({ backup }).catch((error: unknown) =>
        this.#master.logger.warn('copy not removed', { error: String(error) }),
      )
    })
  }

  #forget(): void {
    this.#timer?.cancel()
    this.#timer = null
    this.#current = 0
  }
}
