/** Digests and pages from other chunk servers, over the wire or, in tests, from a store in the same process. */
import type { BufferPool } from '../../base/buffer-pool.ts'
import { CairnError } from '../../base/errors.ts'
import { PAGE_SIZE_BYTES, PAGES_PER_CHUNK, REGIONS_PER_CHUNK } from '../../base/units.ts'
import {
  DataFlag,
  DataOp,
  type DataRequest,
  PAGE_RECORD_BYTES,
  REGION_DIGEST_BYTES,
  REGION_DIGESTS,
} from '../../wire/data.ts'
import type { Peer } from '../../wire/types.ts'
import { decodePull, type PageImage } from '../store/page-tasks.ts'

export interface SourceAddress {
  readonly server: number
  readonly host: string
  readonly port: number
}

export interface PulledPages {
  readonly images: readonly PageImage[]
  /** Bytes that travelled. */
  readonly bytes: number
  /** The contents are gone afterwards. */
  release(): void
}

export interface PageSource {
  /** Page records (12 bytes each) of `count` pages. Rejects with the code of the answer. */
  digest(chunk: number, version: number, firstPage: number, count: number): Promise<Buffer>
  /** 16 bytes for each region of the chunk (`RegionRecords.digest`); null: an older server, which has only page records. */
  regionDigests(chunk: number, version: number): Promise<Buffer | null>
  /** `isFormer`: of a replica that may have left, and was in sync under this version (`DataFlag.former`). */
  pull(
    chunk: number,
    version: number,
    firstPage: number,
    count: number,
    isFormer?: boolean,
  ): Promise<PulledPages>
}

/** Sends one data request; both the wire's peer and a test's store can do this. */
export type RawRequest = (
  request: DataRequest,
  callback: (
    error: CairnError | null,
    code: string,
    borrowedTable: Buffer | null,
    ownedPayload: Buffer | null,
  ) => void,
) => void

const TIMEOUT_MS = 10_000

export class RemoteSource implements PageSource {
  readonly #send: RawRequest
  readonly #pool: BufferPool

  constructor(send: RawRequest, pool: BufferPool) {
    this.#send = send
    this.#pool = pool
  }

  static ofPeer(peer: Peer, pool: BufferPool): RemoteSource {
    return new RemoteSource((request, callback) => {
      peer.sendData(request, null, null, TIMEOUT_MS, (error, answer, table, payload) => {
        callback(error, answer?.code ?? '', table, payload)
      })
    }, pool)
  }

  async digest(chunk: number, version: number, firstPage: number, count: number): Promise<Buffer> {
    const { payload } = await this.#ask(DataOp.digest, chunk, version, firstPage, count)
    if (payload?.length === count * PAGE_RECORD_BYTES) return payload
    if (payload !== null) this.#pool.release(payload)
    throw new CairnError('BAD_MESSAGE', 'a digest of the wrong size')
  }

  async regionDigests(chunk: number, version: number): Promise<Buffer | null> {
    const { payload } = await this.#ask(DataOp.digest, chunk, version, 0, PAGES_PER_CHUNK, 0, REGION_DIGESTS)
    if (payload === null) throw new CairnError('BAD_MESSAGE', 'no digests')
    const digests = payload.length === REGIONS_PER_CHUNK * REGION_DIGEST_BYTES ? Buffer.from(payload) : null
    const isOlder = payload.length === PAGES_PER_CHUNK * PAGE_RECORD_BYTES
    this.#pool.release(payload)
    if (digests !== null || isOlder) return digests
    throw new CairnError('BAD_MESSAGE', 'digests of the wrong size')
  }

  async pull(
    chunk: number,
    version: number,
    firstPage: number,
    count: number,
    isFormer = false,
  ): Promise<PulledPages> {
    const flags = isFormer ? DataFlag.former : 0
    const { table, payload } = await this.#ask(DataOp.pull, chunk, version, firstPage, count, flags)
    const images = decodePull(firstPage, count, table, payload)
    const release = (): void => {
      if (payload !== null) this.#pool.release(payload)
    }
    if (images !== null) return { images, bytes: payload?.length ?? 0, release }
    release()
    throw new CairnError('BAD_MESSAGE', 'malformed pages from a source')
  }

  #ask(
    op: DataOp,
    chunk: number,
    version: number,
    firstPage: number,
    count: number,
    flags = 0,
    incarnation = 0,
  ): Promise<{ table: Buffer; payload: Buffer | null }> {
    const request: DataRequest = {
      op,
      flags,
      version,
      chunk,
      lease: 0,
      session: 0,
      incarnation,
      offset: firstPage * PAGE_SIZE_BYTES,
      length: count * PAGE_SIZE_BYTES,
    }
    return new Promise((resolve, reject) => {
      this.#send(request, (error, code, table, payload) => {
        if (error === null && code === '') {
          // the table is borrowed: it ends with this call
          resolve({ table: Buffer.from(table ?? Buffer.alloc(0)), payload })
          return
        }
        if (payload !== null) this.#pool.release(payload)
        reject(error ?? new CairnError(code, `the source answered ${code}`))
      })
    })
  }
}
