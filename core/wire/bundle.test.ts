/** Proves that bundles are taken apart as they were put together, by whom they may be sent, and that garbage in them ends the connection. */
import { deepEqual, equal, ok, rejects } from 'node:assert/strict'
import { test } from 'node:test'
import { Type } from '@sinclair/typebox'
import { KIB, MIB } from '../base/units.ts'
import { BUNDLE_BYTES_MAX, BUNDLED_HEADER_BYTES, BundleReader, writeBundled } from './bundle.ts'
import { encodeMessage } from './codec.ts'
import { DataOp } from './data.ts'
import { emptyDataAnswer, emptyDataRequest } from './data-codec.ts'
import { FRAME_HEADER_BYTES, FrameKind, sealFrame } from './frame.ts'
import { ManualPair } from './manual-pair.ts'
import { method } from './messages/method.ts'

const table = {
  'test.bytes': method(
    Type.Object({ bytes: Type.Uint8Array() }),
    Type.Object({ bytes: Type.Uint8Array(), number: Type.Number() }),
  ),
  'test.large': method(Type.Object({}), Type.Object({ bytes: Type.Uint8Array() })),
} as const

/** Kinds of the frames that each side has written. */
interface Written {
  readonly dial: number[]
  readonly accept: number[]
}

function watch(pair: ManualPair): Written {
  const written: Written = { dial: [], accept: [] }
  for (const side of ['dial', 'accept'] as const)
    pair[`${side}Side`].onTheWay = (bytes) => {
      for (let at = 0; at < bytes.length; ) {
        written[side].push(bytes[at + 9] ?? 0)
        at += FRAME_HEADER_BYTES + bytes.readUInt32LE(at + 16) + bytes.readUInt32LE(at + 20)
      }
      return bytes
    }
  return written
}

async function readyPair(...options: ConstructorParameters<typeof ManualPair>): Promise<ManualPair> {
  const pair = new ManualPair(...options)
  await pair.run()
  equal(pair.dial.state, 'ready')
  return pair
}

function serveCounting(pair: ManualPair): number[] {
  const sizes: number[] = []
  pair.accept.serve(table, {
    'test.bytes': ({ bytes }) => ({ bytes, number: sizes.push(bytes.length) }),
    'test.large': () => ({ bytes: new Uint8Array(900 * KIB) }),
  })
  return sizes
}

test('calls of one turn go in one frame, answers too; large ones and data between them keep their order', async () => {
  const pair = await readyPair()
  const sizes = serveCounting(pair)
  const written = watch(pair)
  const order: string[] = []
  pair.accept.onData((_request, _table, _payload, responder) => {
    order.push(`data after ${sizes.length}`)
    responder.respond({ ...emptyDataAnswer(), op: DataOp.flush }, null, null)
  })
  const caller = pair.dial.caller(table)
  const wanted = [0, 1, 100, 20 * KIB, 3, 8 * KIB, 7000, 7000, 7000, 7000, 7000, 5]
  const answers = wanted.slice(0, 3).map((size) => caller.call('test.bytes', { bytes: new Uint8Array(size) }))
  pair.dial.sendData({ ...emptyDataRequest(), op: DataOp.flush }, null, null, 1000, () => {})
  for (const size of wanted.slice(3)) answers.push(caller.call('test.bytes', { bytes: new Uint8Array(size) }))
  await pair.run(1000)
  const numbers = (await Promise.all(answers)).map(({ bytes, number }) => [bytes.length, number])
  deepEqual(
    numbers,
    wanted.map((size, position) => [size, position + 1]),
  )
  deepEqual(sizes, wanted)
  deepEqual(order, ['data after 3'])
  const { bundle, call, dataRequest } = FrameKind
  deepEqual(written.dial, [bundle, dataRequest, call, bundle, call, bundle, bundle])
  equal(pair.dial.queuedBytes, 0)
})

test('a peer that does not take bundles is sent none, whichever side it is', async () => {
  for (const [dial, accept] of [
    [0, 2],
    [2, 0],
  ]) {
    const pair = await readyPair({ features: dial ?? 0 }, { features: accept ?? 0 })
    serveCounting(pair)
    const written = watch(pair)
    const caller = pair.dial.caller(table)
    const answers = [1, 2].map((size) => caller.call('test.bytes', { bytes: new Uint8Array(size) }))
    await pair.run()
    await Promise.all(answers)
    deepEqual(written.dial, [FrameKind.call, FrameKind.call])
    deepEqual(written.accept, [FrameKind.result, FrameKind.result])
  }
})

test('who does not read its answers is not served on, not even the rest of a bundle', async () => {
  const pair = await readyPair({}, { limits: { answerBytesMax: MIB } })
  serveCounting(pair)
  const caller = pair.dial.caller(table)
  pair.dialSide.takesNothing = true
  const answers = Array.from({ length: 20 }, () => caller.call('test.large', {}))
  const behind = caller.call('test.bytes', { bytes: new Uint8Array(1) })
  await pair.run()
  ok(pair.accept.queuedBytes < 3 * MIB, `${pair.accept.queuedBytes} bytes of answers`)
  ok(pair.accept.heldBytes > 0)
  pair.dialSide.takesNothing = false
  await pair.run()
  equal((await Promise.all(answers)).length, 20)
  equal((await behind).number, 1)
  equal(pair.accept.heldBytes, 0)
})

function bundleOf(meta: Buffer): Buffer {
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES + meta.length)
  meta.copy(bytes, FRAME_HEADER_BYTES)
  sealFrame(bytes, 0, FrameKind.bundle, 0, meta.length, 0)
  return bytes
}

function bundled(kind: number, meta: Buffer): Buffer {
  const bytes = Buffer.alloc(BUNDLED_HEADER_BYTES + meta.length)
  writeBundled(bytes, 0, kind, 1, meta)
  return bytes
}

const call = bundled(FrameKind.call, encodeMessage(['test.bytes', { bytes: new Uint8Array(3) }]))
const reserved = Buffer.from(call)
reserved[10] = 1

const hostile: Record<string, Buffer> = {
  'cut short': call.subarray(0, call.length - 1),
  'with half a header': Buffer.concat([call, call.subarray(0, 5)]),
  'with a data request': bundled(FrameKind.dataRequest, Buffer.alloc(48)),
  'with a hello': bundled(FrameKind.hello, Buffer.alloc(0)),
  'with a bundle': bundled(FrameKind.bundle, call),
  'with reserved bytes': reserved,
  'that is too long': bundled(FrameKind.ping, Buffer.alloc(BUNDLE_BYTES_MAX)),
}
for (const [what, meta] of Object.entries(hostile))
  test(`a bundle ${what} ends the connection`, async () => {
    const pair = await readyPair()
    pair.acceptSide.handler?.onData(bundleOf(meta))
    await pair.run()
    equal(pair.accept.state, 'closed')
    ok(pair.closeReasons.some((reason) => reason.includes('bundle')))
  })

test('a connection that is closed by a frame of a bundle serves none behind it', async () => {
  const pair = await readyPair()
  const sizes: number[] = []
  pair.accept.serve(table, {
    'test.bytes': ({ bytes }, peer) => {
      sizes.push(bytes.length)
      peer.close('enough')
      return { bytes, number: 0 }
    },
    'test.large': () => ({ bytes: new Uint8Array(0) }),
  })
  const caller = pair.dial.caller(table)
  const calls = [1, 2].map((size) => caller.call('test.bytes', { bytes: new Uint8Array(size) }))
  const ended = Promise.all(calls.map((one) => rejects(one, { code: 'DISCONNECTED' })))
  await pair.run()
  await ended
  deepEqual(sizes, [1])
})

test('a reader that was stopped hands nothing out any more', () => {
  const taken: number[] = []
  const reader = new BundleReader({ onBundled: (kind) => taken.push(kind) === 0, onBundleFault: () => {} })
  reader.take(Buffer.concat([call, call, call]))
  ok(reader.isInterrupted)
  reader.goOn()
  equal(taken.length, 2)
  equal(reader.heldBytes, call.length)
  reader.stop()
  reader.goOn()
  equal(taken.length, 2)
})
