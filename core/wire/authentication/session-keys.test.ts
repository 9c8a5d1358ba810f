/** After the handshake: tags of control frames against somebody in the middle, and new keys on their way to hosts. */
import { deepEqual, equal, match, ok, rejects } from 'node:assert/strict'
import { test } from 'node:test'
import { DataOp } from '../data.ts'
import { emptyDataAnswer, emptyDataRequest } from '../data-codec.ts'
import { FrameKind } from '../frame.ts'
import { FEATURE_BUNDLES } from '../hello.ts'
import { FailureDelays, hostOf } from './failure-delays.ts'
import { echo, type Frame, KeyedPair, keyOf, storeOf } from './keyed-pair.ts'
import { ManualClock } from '../manual-pair.ts'

const isCall = (frame: Frame): boolean => frame.kind === FrameKind.call
const isBundle = (frame: Frame): boolean => frame.kind === FrameKind.bundle

/** With bundles, or with a tag for each frame, as with a peer that does not take them. */
function keyedPair(features = 0): KeyedPair {
  const side = () => ({ keys: storeOf([[1, keyOf(1)]]), peer: { features } })
  return new KeyedPair(side(), side())
}

/** Sends calls through `change`; the connection must end, and only `served` may have been asked. */
async function tampered(
  texts: readonly string[],
  change: (frames: Frame[]) => Frame[],
  served: readonly string[],
  features = 0,
): Promise<void> {
  const keyed = keyedPair(features)
  await keyed.run()
  ok(keyed.isReady)
  keyed.onTheWay(change, (frames) => frames)
  const caller = keyed.pair.dial.caller(echo)
  const answers = texts.map((text) => caller.call('test.echo', { text }))
  const ended = Promise.allSettled(answers)
  await keyed.run()
  equal(keyed.pair.accept.state, 'closed')
  match(keyed.pair.closeReasons.join(), /tag of a frame does not verify/)
  deepEqual(keyed.asked, served)
  await ended
}

test('a frame with a changed bit ends the connection unserved: meta, tag, kind or request id', async () => {
  for (const at of [0, 5, -1, -16, -17]) {
    await tampered(
      ['a'],
      (frames) =>
        frames.map((frame) => {
          if (!isCall(frame)) return frame
          const meta = Buffer.from(frame.meta)
          const index = (at + meta.length) % meta.length
          meta[index] = (meta[index] ?? 0) ^ 1
          return { ...frame, meta }
        }),
      [],
    )
  }
  await tampered(['a'], (frames) => frames.map((frame) => ({ ...frame, kind: FrameKind.notify })), [])
  await tampered(['a'], (frames) => frames.map((frame) => ({ ...frame, requestId: frame.requestId + 1 })), [])
})

test('one tag covers all frames of a bundle, and their headers', async () => {
  const keyed = keyedPair(FEATURE_BUNDLES)
  await keyed.run()
  await keyed.ask('a')
  const sizeBytes = keyed.fromDial.find(isBundle)?.meta.length ?? 0
  ok(sizeBytes > 12 + 16)
  const texts = ['a', 'b', 'c']
  // every byte of the first frame, some of the others, all of the tag
  const places = [...Array(sizeBytes).keys(), -1, -16, -17, -40]
  for (const at of places) {
    const change = (frames: Frame[]): Frame[] =>
      frames.map((frame) => {
        if (!isBundle(frame)) return frame
        const meta = Buffer.from(frame.meta)
        const index = (at + meta.length) % meta.length
        meta[index] = (meta[index] ?? 0) ^ 1
        return { ...frame, meta }
      })
    await tampered(texts, change, [], FEATURE_BUNDLES)
  }
  const twice = (frames: Frame[]): Frame[] => frames.flatMap((frame) => [frame, frame])
  await tampered(texts, twice, texts, FEATURE_BUNDLES)
  const opened = (frames: Frame[]): Frame[] => frames.map((frame) => ({ ...frame, kind: FrameKind.call }))
  await tampered(texts, opened, [], FEATURE_BUNDLES)
})

test('a frame without a tag, or shorter than one, ends the connection', async () => {
  const cut = (count: number) => (frames: Frame[]) =>
    frames.map((frame) => ({
      ...frame,
      meta: frame.meta.subarray(0, Math.max(0, frame.meta.length - count)),
    }))
  await tampered(['a'], cut(16), [])
  await tampered(['a'], cut(1000), [])
})

test('a repeated, left out, swapped or reflected frame ends the connection', async () => {
  await tampered(['a'], (frames) => frames.flatMap((frame) => [frame, frame]), ['a'])
  await tampered(['a', 'b'], (frames) => frames.slice(1), [])
  await tampered(['a', 'b'], (frames) => frames.toReversed(), [])
  const keyed = keyedPair()
  await keyed.run()
  await keyed.ask('a')
  // The answer of the other side, sent back to it as if we had said it.
  const answer = keyed.fromAccept.find((frame) => frame.kind === FrameKind.result)
  ok(answer !== undefined)
  keyed.onTheWay(
    () => [answer],
    (frames) => frames,
  )
  const second = keyed.pair.dial.caller(echo).call('test.echo', { text: 'b' })
  const failed = rejects(second)
  await keyed.run()
  equal(keyed.pair.accept.state, 'closed')
  await failed
})

test('a frame of another session does not verify in this one', async () => {
  const first = keyedPair()
  await first.run()
  await first.ask('a')
  const recorded = first.fromDial.find(isCall)
  ok(recorded !== undefined)
  await tampered(['b'], (frames) => frames.map((frame) => (isCall(frame) ? recorded : frame)), [])
})

test('data frames are as they were: no tag, nothing counted', async () => {
  const keyed = new KeyedPair()
  await keyed.run()
  keyed.pair.accept.onData((_request, _table, _payload, responder) => {
    responder.respond({ ...emptyDataAnswer(), op: DataOp.flush }, null, null)
  })
  const codes: string[] = []
  const request = { ...emptyDataRequest(), op: DataOp.flush, chunk: 7 }
  keyed.pair.dial.sendData(request, null, null, 1000, (error, answer) =>
    codes.push(error?.code ?? answer?.code ?? 'none'),
  )
  await keyed.run()
  deepEqual(codes, [''])
  equal(keyed.fromDial.find((frame) => frame.kind === FrameKind.dataRequest)?.meta.length, 48)
  equal(keyed.fromAccept.find((frame) => frame.kind === FrameKind.dataAnswer)?.meta.length, 32)
  await keyed.ask('still in step')
})

test('a new key reaches hosts that are connected, and those that connect with the old one', async () => {
  const server = storeOf([[1, keyOf(1)]])
  const host = storeOf([[1, keyOf(1)]])
  const keyed = new KeyedPair({ keys: host }, { keys: server })
  await keyed.run()
  server.replace(server.current().with(2, keyOf(2)))
  await keyed.run()
  deepEqual(host.current().versions, [1, 2])
  deepEqual(host.current().get(2), keyOf(2))
  const late = storeOf([[1, keyOf(1)]])
  const second = new KeyedPair({ keys: late }, { keys: server })
  await second.run()
  deepEqual(late.current().versions, [1, 2])
  // Nothing of the key travels in clear.
  const travelled = Buffer.concat([...keyed.fromAccept, ...second.fromAccept].map((frame) => frame.meta))
  equal(travelled.includes(keyOf(2).subarray(0, 8)), false)
  server.replace(server.current().from(2))
  await keyed.run()
  await second.run()
  deepEqual(host.current().versions, [2])
  await keyed.ask('the connection stands')
})

test('only metadata servers end the validity of a key; a chunk server passes the new one on', async () => {
  const server = storeOf([
    [1, keyOf(1)],
    [2, keyOf(2)],
  ])
  const host = storeOf([[1, keyOf(1)]])
  const keyed = new KeyedPair({ keys: host }, { keys: server, role: 'cs' })
  await keyed.run()
  server.replace(server.current().from(2))
  await keyed.run()
  deepEqual(host.current().versions, [1, 2])
})

test('failures of an address are held back longer and longer, others are not, and the table is bounded', () => {
  const clock = new ManualClock()
  const delays = new FailureDelays(clock)
  const held = Array.from({ length: 8 }, () => delays.failed('10.0.0.1').delayMs)
  deepEqual(held, [100, 200, 400, 800, 1600, 3200, 4000, 4000])
  equal(delays.failed('10.0.0.2').delayMs, 100)
  equal(delays.failed('10.0.0.2').log, 0)
  clock.stall(61_000)
  deepEqual(delays.failed('10.0.0.2'), { delayMs: 100, log: 1 })
  for (let i = 0; i < 3000; i++) delays.failed(`10.1.${i >> 8}.${i & 255}`)
  equal(delays.addressCount, 1024)
  equal(hostOf('10.0.0.1:4711'), '10.0.0.1')
  equal(hostOf('[::1]:4711'), '[::1]')
})
