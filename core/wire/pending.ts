/**
 * Requests without an answer, in slots that are reused. A request id is slot (12 bits) and generation
 * (20 bits), so that an answer that comes after its time-out finds nobody.
 */
import type { TSchema } from '@sinclair/typebox'
import { CairnError } from '../base/errors.ts'
import { decodeMessage, shapeFault } from './codec.ts'
import { decodeError } from './hello.ts'
import type { DataCallback } from './types.ts'

const SLOT_BITS = 12
const SLOT_MASK = (1 << SLOT_BITS) - 1
const GENERATION_MASK = (1 << (32 - SLOT_BITS)) - 1

export interface CallContinuation {
  readonly method: string
  readonly result: TSchema
  readonly resolve: (value: unknown) => void
  readonly reject: (error: CairnError) => void
}

/** Ends a call with its answer. A text when the answer does not have the form it must have. */
export function settleCall(call: CallContinuation, isError: boolean, borrowedMeta: Buffer): string | null {
  if (isError) {
    call.reject(decodeError(borrowedMeta))
    return null
  }
  try {
    const value = decodeMessage(borrowedMeta)
    const fault = shapeFault(call.result, value)
    if (fault !== null) throw new CairnError('BAD_MESSAGE', `answer to ${call.method} ${fault}`)
    call.resolve(value)
    return null
  } catch (error) {
    call.reject(
      error instanceof CairnError ? error : new CairnError('BAD_MESSAGE', 'bad answer', { cause: error }),
    )
    return String(error)
  }
}

class Slot {
  generation = 0
  id = 0
  deadlineMs = 0
  /** How much the outbox had taken when this request was in it. */
  outboxMark = 0
  data: DataCallback | null = null
  call: CallContinuation | null = null
}

export class PendingTable {
  readonly #slots: Slot[] = []
  readonly #free: number[] = []

  get count(): number {
    return this.#slots.length - this.#free.length
  }

  /** The caller keeps to its own maximum (at most 4096). Returns the request id. */
  add(deadlineMs: number, data: DataCallback | null, call: CallContinuation | null): number {
    let index = this.#free.pop()
    if (index === undefined) {
      index = this.#slots.length
      this.#slots.push(new Slot())
    }
    const slot = this.#slots[index] as Slot
    slot.generation = (slot.generation + 1) & GENERATION_MASK
    slot.id = ((slot.generation << SLOT_BITS) | index) >>> 0
    slot.deadlineMs = deadlineMs
    slot.data = data
    slot.call = call
    return slot.id
  }

  /** Ends a data request; null when nobody waits for this id. */
  takeData(id: number): DataCallback | null {
    const slot = this.#slots[id & SLOT_MASK]
    if (slot === undefined || slot.id !== id || slot.data === null) return null
    const callback = slot.data
    this.#vacate(slot)
    return callback
  }

  takeCall(id: number): CallContinuation | null {
    const slot = this.#slots[id & SLOT_MASK]
    if (slot === undefined || slot.id !== id || slot.call === null) return null
    const call = slot.call
    this.#vacate(slot)
    return call
  }

  /** Remembers where in the outbox a data request ends. */
  mark(id: number, outboxMark: number): void {
    const slot = this.#slots[id & SLOT_MASK]
    if (slot !== undefined) slot.outboxMark = outboxMark
  }

  /**
   * Fails what is overdue at `nowMs`; Infinity fails all. The callbacks may add new requests. Returns the
   * highest mark of the data requests that failed.
   */
  expire(nowMs: number, errorOf: (what: string) => CairnError): number {
    const count = this.#slots.length
    let outboxMark = 0
    for (let i = 0; i < count; i++) {
      const slot = this.#slots[i] as Slot
      if (slot.deadlineMs > nowMs || (slot.data === null && slot.call === null)) continue
      const { data, call } = slot
      if (data !== null) outboxMark = Math.max(outboxMark, slot.outboxMark)
      this.#vacate(slot)
      if (data !== null) data(errorOf('data request'), null, null, null)
      else call?.reject(errorOf(call.method))
    }
    return outboxMark
  }

  #vacate(slot: Slot): void {
    this.#free.push(slot.id & SLOT_MASK)
    slot.data = null
    slot.call = null
  }
}
