/**
 * A chunk server as far as a client sees it: version, role, lease and incarnation checks, pages in a
 * "page cache" that a host crash loses, and faults that a test switches on. Answers when the test's
 * network delivers.
 */
import { PAGE_SIZE_BYTES } from '../../base/units.ts'
import { pageChecksums, verifyPageChecksums } from '../../wire/checksum.ts'
import { type DataAnswer, DataFlag, DataOp, type DataRequest } from '../../wire/data.ts'

export interface FakeReplica {
  version: number
  role: 'in-sync' | 'joining'
  lease: number
  pages: Map<number, Buffer>
  /** Contents before the first unflushed write. */
  unflushed: Map<number, Buffer | undefined>
}

export interface DataReply {
  readonly answer: DataAnswer
  readonly table: Buffer | null
  readonly payload: Buffer | null
}

export class FakeChunkServer {
  readonly id: number
  readonly replicas = new Map<number, FakeReplica>()
  readonly log: string[] = []
  incarnation: number
  crashes = 0
  isDown = false
  /** Requests are kept and answered when it is switched off. */
  isHanging = false
  /** Answers with this code (once each), for requests of this kind. */
  readonly refusals: { op: DataOp; code: string }[] = []
  /** Pages (by chunk) that do not verify. */
  readonly badPages = new Set<string>()
  flushCount = 0

  constructor(id: number) {
    this.id = id
    this.incarnation = id * 1000 + 1
  }

  create(chunk: number, version: number, lease: number): void {
    this.replicas.set(chunk, { version, role: 'in-sync', lease, pages: new Map(), unflushed: new Map() })
  }

  /** The process restarts; the page cache stays. */
  restart(): void {
    this.incarnation++
  }

  crashHost(): void {
    this.incarnation++
    this.crashes++
    for (const replica of this.replicas.values()) {
      for (const [page, old] of replica.unflushed) {
        if (old === undefined) replica.pages.delete(page)
        else replica.pages.set(page, old)
      }
      replica.unflushed.clear()
    }
  }

  contents(chunk: number, begin: number, end: number): Buffer {
    const result = Buffer.alloc(end - begin)
    const replica = this.replicas.get(chunk)
    for (let at = begin; replica !== undefined && at < end; ) {
      const page = Math.floor(at / PAGE_SIZE_BYTES)
      const stop = Math.min(end, (page + 1) * PAGE_SIZE_BYTES)
      const data = replica.pages.get(page)
      if (data !== undefined)
        data.copy(result, at - begin, at - page * PAGE_SIZE_BYTES, stop - page * PAGE_SIZE_BYTES)
      at = stop
    }
    return result
  }

  handle(request: DataRequest, table: Buffer, payload: Buffer | null): DataReply {
    const refusal = this.refusals.find((candidate) => candidate.op === request.op)
    if (refusal !== undefined) {
      this.refusals.splice(this.refusals.indexOf(refusal), 1)
      return this.#reply(request, refusal.code)
    }
    const replica = this.replicas.get(request.chunk)
    if (replica === undefined) return this.#reply(request, 'NO_REPLICA')
    if (request.version !== replica.version) return this.#reply(request, 'WRONG_VERSION')
    if (request.op === DataOp.read) return this.#read(request, replica)
    if (request.lease < replica.lease) return this.#reply(request, 'STALE_LEASE')
    replica.lease = request.lease
    if (request.op === DataOp.flush) return this.#flush(request, replica)
    if (request.op === DataOp.write) {
      if (payload === null || verifyPageChecksums(payload, request.offset, table) !== -1)
        return this.#reply(request, 'FRAME_CHECKSUM')
      this.#apply(replica, request.offset, payload)
    } else {
      this.#apply(replica, request.offset, Buffer.alloc(request.length))
    }
    this.log.push(`${request.op === DataOp.write ? 'write' : 'zero'} ${request.chunk}@${request.version}`)
    return this.#reply(request, '')
  }

  #apply(replica: FakeReplica, offset: number, data: Buffer): void {
    for (let at = offset; at < offset + data.length; ) {
      const page = Math.floor(at / PAGE_SIZE_BYTES)
      const stop = Math.min(offset + data.length, (page + 1) * PAGE_SIZE_BYTES)
      const old = replica.pages.get(page)
      if (!replica.unflushed.has(page)) replica.unflushed.set(page, old)
      const fresh = old === undefined ? Buffer.alloc(PAGE_SIZE_BYTES) : Buffer.from(old)
      data.copy(fresh, at - page * PAGE_SIZE_BYTES, at - offset, stop - offset)
      replica.pages.set(page, fresh)
      at = stop
    }
  }

  #read(request: DataRequest, replica: FakeReplica): DataReply {
    if (replica.role !== 'in-sync') return this.#reply(request, 'NOT_IN_SYNC')
    const { chunk, offset, length } = request
    for (let page = Math.floor(offset / PAGE_SIZE_BYTES); page * PAGE_SIZE_BYTES < offset + length; page++) {
      if (this.badPages.has(`${chunk}:${page}`)) return this.#reply(request, 'BAD_CHECKSUM')
    }
    const payload = this.contents(chunk, offset, offset + length)
    if (payload.every((byte) => byte === 0)) return this.#reply(request, '', DataFlag.zeros)
    const table = pageChecksums(payload, offset)
    const reply = this.#reply(request, '')
    return { ...reply, table: Buffer.from(table.buffer, table.byteOffset, table.byteLength), payload }
  }

  #flush(request: DataRequest, replica: FakeReplica): DataReply {
    if (request.incarnation !== this.incarnation) return this.#reply(request, 'WRONG_INCARNATION')
    replica.unflushed.clear()
    this.flushCount++
    this.log.push(`flush ${request.chunk}@${request.version}`)
    return this.#reply(request, '')
  }

  #reply(request: DataRequest, code: string, flags = 0): DataReply {
    const { op, version, offset, length } = request
    const { incarnation, crashes } = this
    return {
      answer: { op, flags, code, version, incarnation, crashes, offset, length },
      table: null,
      payload: null,
    }
  }
}
