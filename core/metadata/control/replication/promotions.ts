/**
 * Tells chunk servers that a joiner is in sync (rule E7: this only adds rights, no bump). The commit has
 * happened; the order is repeated until it is followed, the epoch changes, or the server's next report shows that
 * it was lost. A refusal takes the member out where that is possible; the last one of a chunk is asked again.
 */
import { codeOf } from '../../../base/errors.ts'
import type { Master } from '../servers/master.ts'
import type { ServerConnection } from '../servers/server-connection.ts'

const RETRY_MS = 1000
const RETRY_MS_MAX = 30_000
/** Without an answer; then it counts as refused. */
const ATTEMPT_COUNT_MAX = 10
const WAITING_COUNT_MAX = 100_000
const transportCodes = new Set(['DISCONNECTED', 'TIMED_OUT', 'OVERLOADED'])

export class Promotions {
  readonly #master: Master
  readonly #connectionOf: (server: number) => ServerConnection | undefined
  readonly #refused: (chunk: number, server: number, code: string) => void

  #waitingCount = 0

  constructor(
    master: Master,
    connectionOf: (server: number) => ServerConnection | undefined,
    refused: (chunk: number, server: number, code: string) => void,
  ) {
    this.#master = master
    this.#connectionOf = connectionOf
    this.#refused = refused
  }

  promote(chunk: number, version: number, server: number, attempt = 1): void {
    const connection = this.#connectionOf(server)
    // Its next report will show it.
    if (connection === undefined || !this.#isInSync(chunk, version, server)) return
    connection.orders.call('replica.promote', { chunk, version }).catch((error: unknown) => {
      if (this.#master.isStopped || !this.#isInSync(chunk, version, server)) return
      const code = codeOf(error)
      if (!transportCodes.has(code) || attempt >= ATTEMPT_COUNT_MAX) this.#refused(chunk, server, code)
      this.#later(chunk, version, server, attempt + 1)
    })
  }

  #later(chunk: number, version: number, server: number, attempt: number): void {
    // Beyond the bound its next report shows it.
    if (this.#waitingCount >= WAITING_COUNT_MAX) return
    this.#waitingCount += 1
    this.#master.after(Math.min(RETRY_MS_MAX, RETRY_MS * attempt), () => {
      this.#waitingCount -= 1
      this.promote(chunk, version, server, attempt)
    })
  }

  #isInSync(chunk: number, version: number, server: number): boolean {
    const row = this.#master.state.chunks.get(chunk)
    if (row === undefined || row.version !== version || row.pending !== null) return false
    return row.members.some((member) => member.server === server && member.role === 'in-sync')
  }
}
