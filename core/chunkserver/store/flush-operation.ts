/** A client's flush (rules F1, F5-F7). */
import { mark } from '../../base/coverage.ts'
import type { CairnError } from '../../base/errors.ts'
import type { WireCode } from '../../wire/codes.ts'
import { wireCodeOfDiskError } from '../format/errors.ts'
import { Operation } from './operation.ts'
import { Hold } from '../replica/operation-queue.ts'
import type { SyncWaiter } from '../replica/replica-sync.ts'

/** fdatasync of data and page records, for the incarnation that took the writes (rule F6). */
export class FlushOperation extends Operation implements SyncWaiter {
  readonly hold: Hold = Hold.passive

  protected check(): WireCode | '' {
    const code = this.checkVersion()
    if (code !== '') return code
    if (this.store.failure !== null) return 'DISK_FAILED'
    if (this.request.incarnation !== this.store.incarnation) {
      mark('a flush of writes that another process took is refused')
      return 'WRONG_INCARNATION'
    }
    return this.current.isUnclean && this.current.good === null ? 'NOT_IN_SYNC' : ''
  }

  protected run(): void {
    this.store.counters.flushOperations++
    this.store.sync(this.current, this)
  }

  protected onRegionsReady(): void {
    // needs no records
  }

  onSynced(error: CairnError | null): void {
    this.answer(error === null ? '' : wireCodeOfDiskError(error))
  }

  protected recycle(): void {
    this.store.operations.flushes.give(this)
  }
}
