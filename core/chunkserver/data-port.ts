/**
 * The data port: data requests of clients and other chunk servers, draining of a session's earlier
 * connections (rule E5).
 */
import type { DataAnswer, DataRequest } from '../wire/data.ts'
import { chunkServerPortMethods } from '../wire/messages/chunk.ts'
import type { DataResponder, Peer } from '../wire/types.ts'
import type { ChunkStore } from './store/chunk-store.ts'
import { wireError } from './format/errors.ts'
import type { RequestOwner } from './store/operation.ts'

/** What one connection has under way. */
class DataPeer implements RequestOwner {
  readonly peer: Peer
  session: number
  outstandingCount = 0
  readonly #idleWaiters: (() => void)[] = []

  constructor(peer: Peer) {
    this.peer = peer
    this.session = peer.remoteIdentity?.session ?? 0
  }

  requestDone(): void {
    if (--this.outstandingCount > 0) return
    for (const resolve of this.#idleWaiters.splice(0)) resolve()
  }

  idle(): Promise<void> {
    if (this.outstandingCount === 0) return Promise.resolve()
    return new Promise((resolve) => this.#idleWaiters.push(resolve))
  }
}

export class DataPort {
  readonly #store: ChunkStore
  /** Registered and reported (rule B3). */
  serving = false
  readonly #peers = new Set<DataPeer>()
  readonly #refusal: DataAnswer
  readonly #onShutdown: () => void

  constructor(store: ChunkStore, onShutdown: () => void = () => {}) {
    this.#onShutdown = onShutdown
    this.#store = store
    this.#refusal = {
      op: 2,
      flags: 0,
      code: 'STARTING',
      version: 0,
      incarnation: store.incarnation,
      crashes: store.superblock.crashes,
      offset: 0,
      length: 0,
    }
  }

  readonly onPeer = (peer: Peer): void => {
    const entry = new DataPeer(peer)
    this.#peers.add(entry)
    // a closed connection is kept until its last request is done: that is what drain waits for
    peer.onClosed(() => void entry.idle().then(() => this.#peers.delete(entry)))
    peer.onData((request, table, payload, responder) => {
      this.#onData(entry, request, table, payload, responder)
    })
    peer.serve(chunkServerPortMethods, {
      'cs.drain': async ({ session }) => {
        await this.#drain(session, entry)
        return { incarnation: this.#store.incarnation }
      },
      'cs.shutdown': () => {
        if (peer.remoteIdentity?.role !== 'admin')
          throw wireError('REFUSED', 'only an administrator may do that')
        this.#onShutdown()
        return {}
      },
    })
  }

  #onData(
    entry: DataPeer,
    request: DataRequest,
    table: Buffer,
    ownedPayload: Buffer | null,
    responder: DataResponder,
  ): void {
    if (!this.serving) {
      if (ownedPayload !== null) this.#store.pool.release(ownedPayload)
      this.#refusal.op = request.op
      responder.respond(this.#refusal, null, null)
      return
    }
    if (entry.session === 0) entry.session = request.session
    entry.outstandingCount++
    this.#store.submit(request, table, ownedPayload, responder, entry)
  }

  /** Rule E5: the other connections of the session are closed and have nothing queued. */
  async #drain(session: number, asking: DataPeer): Promise<void> {
    if (session === 0) throw wireError('BAD_MESSAGE', 'session 0 cannot be drained')
    const others = [...this.#peers].filter((entry) => entry !== asking && entry.session === session)
    for (const entry of others) entry.peer.close('superseded by a newer connection of its session')
    await Promise.all(others.map((entry) => entry.idle()))
  }
}
