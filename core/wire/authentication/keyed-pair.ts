/**
 * For the tests of authentication: two peers with cluster keys, and somebody in the middle who sees every
 * frame and may change, drop, repeat or insert some.
 */
import { deepEqual } from 'node:assert/strict'
import { Type } from '@sinclair/typebox'
import { Prng } from '../../base/prng.ts'
import { KeyRing, type KeyStore, MemoryKeyStore } from '../../platform/key-ring.ts'
import { silentLogger } from '../../platform/logger.ts'
import type { Random } from '../../platform/random.ts'
import { BundleReader } from '../bundle.ts'
import { FRAME_HEADER_BYTES, FrameKind, sealFrame } from '../frame.ts'
import { identityOf, ManualClock, ManualPair } from '../manual-pair.ts'
import { method } from '../messages/method.ts'
import type { WirePeerOptions } from '../peer.ts'
import { KeyAuthenticator } from './key-authenticator.ts'

export const UUID = 'a'.repeat(32)
export const OTHER_UUID = 'b'.repeat(32)
export const keyOf = (fill: number): Buffer => Buffer.alloc(32, fill)
export const storeOf = (keys: readonly (readonly [number, Buffer])[], uuid = UUID): MemoryKeyStore =>
  new MemoryKeyStore(new KeyRing(uuid, keys))

export const echo = {
  'test.echo': method(Type.Object({ text: Type.String() }), Type.Object({ text: Type.String() })),
} as const

export interface Frame {
  readonly kind: number
  readonly requestId: number
  readonly meta: Buffer
  readonly payload: Buffer
}

export function framesOf(bytes: Buffer): Frame[] {
  const frames: Frame[] = []
  for (let at = 0; at < bytes.length; ) {
    const metaAt = at + FRAME_HEADER_BYTES
    const payloadAt = metaAt + bytes.readUInt32LE(at + 16)
    const end = payloadAt + bytes.readUInt32LE(at + 20)
    frames.push({
      kind: bytes[at + 9] ?? 0,
      requestId: bytes.readUInt32LE(at + 12),
      meta: Buffer.from(bytes.subarray(metaAt, payloadAt)),
      payload: Buffer.from(bytes.subarray(payloadAt, end)),
    })
    at = end
  }
  return frames
}

/** The same with what is in bundles instead of them. `tagBytes`: at the end of each bundle. */
export function unbundled(frames: readonly Frame[], tagBytes: number): Frame[] {
  return frames.flatMap((frame) => {
    if (frame.kind !== FrameKind.bundle) return [frame]
    const inner: Frame[] = []
    const reader = new BundleReader({
      onBundled: (kind, requestId, meta) =>
        inner.push({ kind, requestId, meta: Buffer.from(meta), payload: Buffer.alloc(0) }) > 0,
      onBundleFault: (reason) => {
        throw new Error(reason)
      },
    })
    reader.take(frame.meta.subarray(0, frame.meta.length - tagBytes))
    return inner
  })
}

/** With a right checksum: whoever changes bytes on the way can compute it. */
export function bytesOf(frames: readonly Frame[]): Buffer {
  return Buffer.concat(
    frames.map(({ kind, requestId, meta, payload }) => {
      const head = Buffer.alloc(FRAME_HEADER_BYTES + meta.length)
      meta.copy(head, FRAME_HEADER_BYTES)
      sealFrame(head, 0, kind, requestId, meta.length, payload.length)
      return Buffer.concat([head, payload])
    }),
  )
}

let seed = 1

/** Another stream for each side. */
function seeded(streamSeed: number): Random {
  const prng = new Prng(streamSeed)
  const bytes = (count: number): Buffer =>
    Buffer.from(Array.from({ length: count }, () => prng.uint32() & 0xff))
  return {
    float: () => prng.float(),
    below: (boundExclusive) => Math.floor(prng.float() * boundExclusive),
    bytes,
    hex: (byteCount) => bytes(byteCount).toString('hex'),
  }
}

interface Side {
  readonly keys?: KeyStore
  readonly role?: string
  readonly uuid?: string
  readonly admitsPasswords?: boolean
  readonly peer?: Partial<WirePeerOptions>
}

export class KeyedPair {
  readonly pair: ManualPair
  /** What the handlers of the accepting side were asked. */
  readonly asked: string[] = []
  readonly fromDial: Frame[] = []
  readonly fromAccept: Frame[] = []

  /** Without `keys` a side has no authenticator. */
  constructor(
    dial: Side = { keys: storeOf([[1, keyOf(1)]]) },
    accept: Side = { keys: storeOf([[1, keyOf(1)]]) },
  ) {
    const clock = new ManualClock()
    const options = (side: Side, role: string): Partial<WirePeerOptions> => ({
      ...(side.keys === undefined
        ? {}
        : {
            authenticator: new KeyAuthenticator({
              keys: side.keys,
              random: seeded(seed++),
              clock,
              logger: silentLogger,
              cluster: 'alpha',
              admitsPasswords: side.admitsPasswords ?? false,
            }),
          }),
      clock,
      identity: identityOf(side.role ?? role, { clusterUuid: side.uuid ?? (role === 'mds' ? UUID : '') }),
      ...side.peer,
    })
    this.pair = new ManualPair(options(dial, 'client'), options(accept, 'mds'))
    this.#clock = clock
    this.onTheWay(
      (frames) => frames,
      (frames) => frames,
    )
  }

  readonly #clock: ManualClock

  /** Sees the frames of each write, and says what arrives instead. */
  onTheWay(fromDial: (frames: Frame[]) => Frame[], fromAccept: (frames: Frame[]) => Frame[]): void {
    this.pair.dialSide.onTheWay = (written) => {
      const frames = framesOf(written)
      this.fromDial.push(...frames)
      return bytesOf(fromDial(frames))
    }
    this.pair.acceptSide.onTheWay = (written) => {
      const frames = framesOf(written)
      this.fromAccept.push(...frames)
      return bytesOf(fromAccept(frames))
    }
  }

  /** Long enough for a refusal that was held back. */
  async run(): Promise<void> {
    for (let step = 0; step < 20; step++) {
      while (this.#clock.runDeferred()) {
        // until nothing is left of this turn
      }
      await this.pair.run()
      this.#clock.advanceTo(this.#clock.nowMs() + 20)
    }
    for (const peer of this.pair.readyPeers) {
      peer.serve(echo, {
        'test.echo': ({ text }) => {
          this.asked.push(text)
          return { text }
        },
      })
    }
  }

  get isReady(): boolean {
    return this.pair.dial.state === 'ready' && this.pair.accept.state === 'ready'
  }

  async ask(text: string): Promise<void> {
    const answer = this.pair.dial.caller(echo).call('test.echo', { text })
    await this.run()
    deepEqual(await answer, { text })
  }
}
