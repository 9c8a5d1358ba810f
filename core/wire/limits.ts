/** Numbers of the wire, and why they fit each other. Checked at start-up. */
import { assert } from '../base/assert.ts'
import { DATA_PAYLOAD_BYTES_MAX, KIB, MIB } from '../base/units.ts'
import type { WireLimits } from './types.ts'

export const META_BYTES_MAX = MIB
/** Behind the meta of control frames on authenticated connections. */
export const TAG_BYTES = 16
/** A data payload, and a little for page records of later protocol versions. */
export const PAYLOAD_BYTES_MAX = DATA_PAYLOAD_BYTES_MAX + 64 * KIB
/** Request ids carry a slot number of 12 bits. */
export const SLOT_COUNT_MAX = 4096

export const defaultWireLimits: WireLimits = {
  inFlightCountMax: 1024,
  queuedBytesMax: 64 * MIB,
  servedCallCountMax: 1024,
  servedCallBytesMax: 16 * MIB,
  servedDataCountMax: 256,
  servedDataBytesMax: 32 * MIB,
  answerBytesMax: 16 * MIB,
  handshakeTimeoutMs: 5000,
  frameTimeoutMs: 15_000,
  callTimeoutMs: 10_000,
  idleMs: 5000,
  deadMs: 15_000,
  tickMs: 250,
}

export function wireLimits(overrides: Partial<WireLimits> = {}): WireLimits {
  const limits = { ...defaultWireLimits, ...overrides }
  assert(limits.inFlightCountMax <= SLOT_COUNT_MAX, 'every request in flight has a slot')
  assert(limits.queuedBytesMax >= PAYLOAD_BYTES_MAX, 'one data request fits the send queue')
  assert(limits.servedCallBytesMax >= META_BYTES_MAX, 'one call of the largest size can be served')
  assert(limits.servedDataBytesMax >= DATA_PAYLOAD_BYTES_MAX, 'one data request can be served')
  assert(limits.tickMs <= limits.handshakeTimeoutMs, 'the tick sees every deadline')
  return limits
}
