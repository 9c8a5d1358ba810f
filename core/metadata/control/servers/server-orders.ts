/**
 * Orders to chunk servers, gathered per server and kind and sent as batches, a few at a time. Each item is
 * answered exactly once: '' or a code. A server without a reported connection answers DISCONNECTED.
 */
import { codeOf } from '../../../base/errors.ts'
import type { ReplicaRole } from '../../../wire/messages/chunk.ts'
import type { Master } from './master.ts'
import type { ServerConnection } from './server-connection.ts'

export interface ReplicaOrder {
  readonly chunk: number
  readonly version: number
  readonly role: ReplicaRole
  readonly lease: number
  /** An overlay over the replica of this chunk there (rule S3). */
  readonly parent?: number
}
export interface MergeOrder {
  readonly chunk: number
  readonly parent: number
}
export interface DeleteOrder {
  readonly chunk: number
  readonly versionMax: number
}
/** `heldVersion`: what the replica has now (persist only). */
export type OrderDone = (code: string, heldVersion: number) => void

interface Item<Order> {
  readonly order: Order
  readonly done: OrderDone
  /** Asked when it is sent: orders may have waited for the answers to others, over a new connection even. */
  readonly isWanted: () => boolean
}
const always = (): boolean => true

const BATCH_COUNT_MAX = 256
const BATCHES_IN_FLIGHT_MAX = 4
/** Items that wait for one server and kind; beyond it they are refused. */
const QUEUED_COUNT_MAX = 65_536
const PERSIST_TIMEOUT_MS = 10_000
const CREATE_TIMEOUT_MS = 5_000
const DELETE_TIMEOUT_MS = 30_000

type Send<Order> = (connection: ServerConnection, batch: readonly Item<Order>[]) => Promise<void>

class BatchQueue<Order> {
  readonly #connectionOf: (server: number) => ServerConnection | undefined
  readonly #master: Master
  readonly #send: Send<Order>
  readonly #waiting = new Map<number, Item<Order>[]>()
  readonly #inFlight = new Map<number, number>()
  readonly #scheduled = new Set<number>()

  constructor(
    master: Master,
    connectionOf: (server: number) => ServerConnection | undefined,
    send: Send<Order>,
  ) {
    this.#master = master
    this.#connectionOf = connectionOf
    this.#send = send
  }

  add(server: number, order: Order, done: OrderDone, isWanted = always): void {
    let items = this.#waiting.get(server)
    if (items === undefined) {
      items = []
      this.#waiting.set(server, items)
    }
    if (items.length >= QUEUED_COUNT_MAX) return this.#master.defer(() => done('OVERLOADED', 0))
    items.push({ order, done, isWanted })
    this.#schedule(server)
  }

  #schedule(server: number): void {
    if (this.#scheduled.has(server)) return
    this.#scheduled.add(server)
    this.#master.defer(() => {
      this.#scheduled.delete(server)
      this.#flush(server)
    })
  }

  #flush(server: number): void {
    const connection = this.#connectionOf(server)
    for (;;) {
      const items = this.#waiting.get(server)
      const inFlight = this.#inFlight.get(server) ?? 0
      if (items === undefined || inFlight >= BATCHES_IN_FLIGHT_MAX) return
      const taken = items.splice(0, BATCH_COUNT_MAX)
      if (items.length === 0) this.#waiting.delete(server)
      const batch = taken.filter((item) => item.isWanted())
      for (const item of taken) if (!item.isWanted()) item.done('DISCONNECTED', 0)
      if (batch.length === 0) continue
      if (connection === undefined || !connection.isReported) {
        for (const item of batch) item.done('DISCONNECTED', 0)
        continue
      }
      this.#inFlight.set(server, inFlight + 1)
      void this.#run(server, connection, batch)
    }
  }

  async #run(server: number, connection: ServerConnection, batch: readonly Item<Order>[]): Promise<void> {
    try {
      await this.#send(connection, batch)
    } catch (error) {
      const code = codeOf(error)
      if (!this.#master.isStopped) for (const item of batch) item.done(code, 0)
    }
    const left = (this.#inFlight.get(server) ?? 1) - 1
    if (left === 0) this.#inFlight.delete(server)
    else this.#inFlight.set(server, left)
    if (!this.#master.isStopped && this.#waiting.has(server)) this.#schedule(server)
  }
}

export class ServerOrders {
  readonly #persist: BatchQueue<ReplicaOrder>
  readonly #create: BatchQueue<ReplicaOrder>
  readonly #delete: BatchQueue<DeleteOrder>
  readonly #merge: BatchQueue<MergeOrder>
  readonly #close: BatchQueue<number>

  constructor(master: Master, connectionOf: (server: number) => ServerConnection | undefined) {
    const isStopped = () => master.isStopped
    this.#persist = new BatchQueue(master, connectionOf, async (connection, batch) => {
      const replicas = batch.map((item) => item.order)
      const { held } = await connection.orders.call(
        'replica.persist',
        { replicas },
        { timeoutMs: PERSIST_TIMEOUT_MS },
      )
      if (isStopped()) return
      const byChunk = new Map(held.map((entry) => [entry.chunk, entry]))
      for (const { order, done } of batch) {
        const answer = byChunk.get(order.chunk)
        if (answer === undefined) done('BAD_MESSAGE', 0)
        else if (answer.code !== undefined && answer.code !== '') done(answer.code, answer.version)
        // A late order is answered with what the replica has now (rule E2).
        else done(answer.version === order.version ? '' : 'WRONG_VERSION', answer.version)
      }
    })
    this.#create = new BatchQueue(master, connectionOf, async (connection, batch) => {
      const replicas = batch.map((item) => item.order)
      const { failed } = await connection.orders.call(
        'replica.create',
        { replicas },
        { timeoutMs: CREATE_TIMEOUT_MS },
      )
      if (isStopped()) return
      const codes = new Map(failed.map((entry) => [entry.chunk, entry.code]))
      for (const { order, done } of batch) done(codes.get(order.chunk) ?? '', order.version)
    })
    this.#delete = new BatchQueue(master, connectionOf, async (connection, batch) => {
      const replicas = batch.map((item) => item.order)
      const answer = await connection.orders.call(
        'replica.delete',
        { replicas },
        { timeoutMs: DELETE_TIMEOUT_MS },
      )
      if (isStopped()) return
      const deleted = new Set(answer.deleted)
      const codes = new Map(answer.codes?.map((entry) => [entry.chunk, entry.code]))
      for (const { order, done } of batch)
        done(deleted.has(order.chunk) ? '' : (codes.get(order.chunk) ?? 'REFUSED'), 0)
    })
    this.#merge = new BatchQueue(master, connectionOf, async (connection, batch) => {
      const replicas = batch.map((item) => item.order)
      const { refused } = await connection.orders.call('replica.merge', { replicas })
      if (isStopped()) return
      const codes = new Map(refused.map((entry) => [entry.chunk, entry.code]))
      for (const { order, done } of batch) done(codes.get(order.chunk) ?? '', 0)
    })
    this.#close = new BatchQueue(master, connectionOf, async (connection, batch) => {
      await connection.orders.call('replica.close', { chunks: batch.map((item) => item.order) })
    })
  }

  /** Role and version durable; everything admitted at lower versions has ended (rule E2). */
  persist(server: number, order: ReplicaOrder, done: OrderDone): void {
    this.#persist.add(server, order, done)
  }

  /** Rule E12. Nothing is created any more of what is no longer wanted: nobody would ever delete it. */
  create(server: number, order: ReplicaOrder, isWanted: () => boolean, done: OrderDone): void {
    this.#create.add(server, order, done, isWanted)
  }

  delete(server: number, order: DeleteOrder, done: OrderDone): void {
    this.#delete.add(server, order, done)
  }

  /** '' when the server begins it; `cs.merged` says that it is done (rule S5). */
  merge(server: number, order: MergeOrder, done: OrderDone): void {
    this.#merge.add(server, order, done)
  }

  /** The intent is cleared (rule B1). Best effort: a list that is too long only costs time after a crash. */
  close(server: number, chunk: number): void {
    this.#close.add(server, chunk, () => {})
  }
}
