/**
 * Data requests of the peer: decodes into reused objects and keeps count of what is unanswered, so that
 * the connection stops reading in time. No promise and no closure per request.
 */
import type { BufferPool } from '../base/buffer-pool.ts'
import { assert } from '../base/assert.ts'
import { type DataAnswer, DATA_REQUEST_BYTES, DataOp, type DataRequest } from './data.ts'
import { emptyDataRequest, readDataRequest } from './data-codec.ts'
import type { DataHandler, DataResponder, Peer, WireLimits } from './types.ts'

export type SendAnswer = (
  requestId: number,
  answer: DataAnswer,
  table: Uint32Array | Buffer | null,
  ownedPayload: Buffer | null,
) => void

class Responder implements DataResponder {
  readonly #served: ServedData
  requestId = 0
  weightBytes = 0
  waiting = false

  constructor(served: ServedData) {
    this.#served = served
  }

  respond(
    borrowedAnswer: DataAnswer,
    borrowedTable: Uint32Array | Buffer | null,
    ownedPayload: Buffer | null,
  ): void {
    assert(this.waiting, 'a data request is answered once')
    this.waiting = false
    this.#served.finish(this, borrowedAnswer, borrowedTable, ownedPayload)
  }
}

export class ServedData {
  readonly #limits: WireLimits
  readonly #pool: BufferPool
  readonly #send: SendAnswer
  readonly #request: DataRequest = emptyDataRequest()
  readonly #free: Responder[] = []
  #handler: DataHandler | null = null
  #count = 0
  #sizeBytes = 0
  #closed = false

  constructor(limits: WireLimits, pool: BufferPool, send: SendAnswer) {
    this.#limits = limits
    this.#pool = pool
    this.#send = send
  }

  set handler(handler: DataHandler) {
    this.#handler = handler
  }

  /** No further request may be taken now. */
  get full(): boolean {
    return (
      this.#count >= this.#limits.servedDataCountMax || this.#sizeBytes >= this.#limits.servedDataBytesMax
    )
  }

  /** Low enough to read again. */
  get relaxed(): boolean {
    return (
      this.#count * 2 <= this.#limits.servedDataCountMax &&
      this.#sizeBytes * 2 <= this.#limits.servedDataBytesMax
    )
  }

  /** A text when the connection must end: what came is not a data request. */
  onRequest(requestId: number, borrowedMeta: Buffer, ownedPayload: Buffer | null, peer: Peer): string | null {
    const request = this.#request
    if (this.#handler === null || !readDataRequest(borrowedMeta, request)) {
      if (ownedPayload !== null) this.#pool.release(ownedPayload)
      return this.#handler === null ? 'a data request where none is served' : 'a malformed data request'
    }
    const responder = this.#free.pop() ?? new Responder(this)
    responder.requestId = requestId
    responder.waiting = true
    responder.weightBytes = borrowedMeta.length + (ownedPayload === null ? 0 : ownedPayload.length)
    // what a read asks for will be memory soon
    if (request.op === DataOp.read || request.op === DataOp.pull)
      responder.weightBytes += Math.min(request.length, this.#limits.servedDataBytesMax)
    this.#count++
    this.#sizeBytes += responder.weightBytes
    this.#handler(request, borrowedMeta.subarray(DATA_REQUEST_BYTES), ownedPayload, responder, peer)
    return null
  }

  finish(
    responder: Responder,
    answer: DataAnswer,
    table: Uint32Array | Buffer | null,
    ownedPayload: Buffer | null,
  ): void {
    this.#count--
    this.#sizeBytes -= responder.weightBytes
    const requestId = responder.requestId
    if (this.#free.length < this.#limits.servedDataCountMax) this.#free.push(responder)
    if (!this.#closed) this.#send(requestId, answer, table, ownedPayload)
    else if (ownedPayload !== null) this.#pool.release(ownedPayload)
  }

  close(): void {
    this.#closed = true
  }
}
