/**
 * Leases that go back at about the same time go back in one message and one commit of the quorum. Each file has
 * done before what its return needs (flush, intents, size and times); see file/file-lease.ts.
 */
import type { Clock } from '../../platform/clock.ts'
import { asCairnError } from './errors.ts'
import { LEASES_PER_RETURN_MAX } from './limits.ts'
import type { Session } from './session.ts'

const UNKNOWN_CODES: readonly string[] = ['FEATURE_LEVEL', 'UNKNOWN_METHOD']

interface Waiting {
  readonly inode: number
  readonly lease: number
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

export class LeaseReturns {
  readonly #session: Session
  readonly #clock: Clock
  #waiting: Waiting[] = []

  constructor(session: Session, clock: Clock) {
    this.#session = session
    this.#clock = clock
  }

  /** Resolves when the lease has ended. Of a single one the quorum also says when it had ended before. */
  give(inode: number, lease: number): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#waiting.length === 0) this.#clock.defer(() => this.#send())
      this.#waiting.push({ inode, lease, resolve, reject })
    })
  }

  #send(): void {
    const all = this.#waiting
    this.#waiting = []
    for (let at = 0; at < all.length; at += LEASES_PER_RETURN_MAX) {
      const some = all.slice(at, at + LEASES_PER_RETURN_MAX)
      if (some.length > 1) this.#sendTogether(some)
      else this.#sendEach(some)
    }
  }

  #sendTogether(some: readonly Waiting[]): void {
    const leases = some.map(({ inode, lease }) => ({ inode, lease }))
    this.#session.mutate('lease.return', { leases }).then(
      () => {
        for (const { resolve } of some) resolve()
      },
      (error: unknown) => {
        // Some metadata servers are of a version that cannot.
        if (UNKNOWN_CODES.includes(asCairnError(error).code)) this.#sendEach(some)
        else for (const { reject } of some) reject(error)
      },
    )
  }

  #sendEach(some: readonly Waiting[]): void {
    for (const { inode, lease, resolve, reject } of some)
      this.#session.mutate('lease.release', { inode, lease }).then(() => resolve(), reject)
  }
}
