/**
 * One data request to one member, reused from a free list: no closure per operation. The owner gets
 * exactly one `memberAnswered` for each `send`; answers to an attempt it has given up are its to ignore
 * (`version` and `tag` say which attempt it was).
 */
import type { CairnError } from '../../base/errors.ts'
import type { DataAnswer, DataOp, DataRequest } from '../../wire/data.ts'
import { emptyDataRequest } from '../../wire/data-codec.ts'
import type { DataCallback } from '../../wire/types.ts'
import type { OutgoingRequest, ServerPool } from '../session/server-pool.ts'

export interface MemberRequestOwner {
  /** `code` '' = ok. `borrowedAnswer` and `borrowedTable` until it returns; `ownedPayload` goes to `pool.release`. */
  memberAnswered(
    memberIndex: number,
    version: number,
    tag: number,
    code: string,
    borrowedAnswer: DataAnswer | null,
    borrowedTable: Buffer | null,
    ownedPayload: Buffer | null,
  ): void
}

const FREE_COUNT_MAX = 4096
const free: MemberRequest[] = []

export class MemberRequest implements OutgoingRequest {
  readonly request: DataRequest = emptyDataRequest()
  table: Uint32Array | null = null
  payload: Buffer | null = null
  #owner: MemberRequestOwner | null = null
  #memberIndex = 0
  #tag = 0

  /** Fields of `request` other than session are set by the caller before `send`. */
  static take(op: DataOp, flags: number, version: number, chunk: number, lease: number): MemberRequest {
    const taken = free.pop() ?? new MemberRequest()
    const request = taken.request
    request.op = op
    request.flags = flags
    request.version = version
    request.chunk = chunk
    request.lease = lease
    request.incarnation = 0
    request.offset = 0
    request.length = 0
    return taken
  }

  send(pool: ServerPool, server: number, owner: MemberRequestOwner, memberIndex: number, tag: number): void {
    this.#owner = owner
    this.#memberIndex = memberIndex
    this.#tag = tag
    pool.send(server, this)
  }

  readonly callback: DataCallback = (
    error: CairnError | null,
    answer: DataAnswer | null,
    table: Buffer | null,
    payload: Buffer | null,
  ): void => {
    const owner = this.#owner
    const version = this.request.version
    const memberIndex = this.#memberIndex
    const tag = this.#tag
    this.#owner = null
    this.table = null
    this.payload = null
    if (free.length < FREE_COUNT_MAX) free.push(this)
    const code = error === null ? (answer?.code ?? 'BAD_MESSAGE') : error.code
    owner?.memberAnswered(memberIndex, version, tag, code, answer, table, payload)
  }
}
