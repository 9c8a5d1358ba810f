/** Who gets in and who does not: every refusal of docs/formats/authentication.md, and attackers in the middle. */
import { deepEqual, equal, match, ok } from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { CairnError } from '../../base/errors.ts'
import { encodeMessage } from '../codec.ts'
import { FrameKind } from '../frame.ts'
import { identityOf } from '../manual-pair.ts'
import { bytesOf, type Frame, KeyedPair, keyOf, OTHER_UUID, storeOf } from './keyed-pair.ts'

const isProof = (frame: Frame): boolean => frame.kind === FrameKind.authentication

/** Neither side lets the other in; `by`: who says why. */
async function refused(
  keyed: KeyedPair,
  code: string,
  by: 'dial' | 'accept' | 'both' = 'both',
): Promise<CairnError> {
  await keyed.run()
  equal(keyed.isReady, false)
  equal(keyed.pair.accept.state, 'closed')
  equal(keyed.pair.dial.state, 'closed')
  deepEqual(keyed.asked, [])
  if (by !== 'accept') equal(keyed.pair.dial.refusal?.code, code)
  if (by !== 'dial') equal(keyed.pair.accept.refusal?.code, code)
  return (keyed.pair.dial.refusal ?? keyed.pair.accept.refusal) as CairnError
}

test('both have the key: calls are answered, and control frames carry 16 bytes more', async () => {
  const side = () => ({ keys: storeOf([[1, keyOf(1)]]), peer: { features: 0 } })
  const keyed = new KeyedPair(side(), side())
  await keyed.run()
  ok(keyed.isReady)
  await keyed.ask('hello')
  deepEqual(keyed.asked, ['hello'])
  const call = keyed.fromDial.find((frame) => frame.kind === FrameKind.call)
  equal(call?.meta.length, encodeMessage(['test.echo', { text: 'hello' }]).length + 16)
  equal(keyed.fromDial.filter(isProof).length, 1)
  equal(keyed.fromAccept.filter(isProof).length, 2)
})

test('another key, on either side: WRONG_KEY with the next step', async () => {
  const error = await refused(new KeyedPair({ keys: storeOf([[1, keyOf(2)]]) }), 'WRONG_KEY')
  match(error.next ?? '', /auth-node/)
})

test('a server that lets everybody in is not believed', async () => {
  const keyed = new KeyedPair()
  keyed.onTheWay(
    (frames) => frames,
    (frames) =>
      frames.map((frame) =>
        isProof(frame) && frame.meta[0] === 3
          ? { ...frame, meta: Buffer.concat([frame.meta.subarray(0, 4), keyOf(9)]) }
          : frame,
      ),
  )
  await keyed.run()
  equal(keyed.pair.dial.refusal?.code, 'WRONG_KEY')
  equal(keyed.pair.dial.state, 'closed')
})

test('no common version of the key: KEY_RETIRED, before anything is proved', async () => {
  const keyed = new KeyedPair({ keys: storeOf([[1, keyOf(1)]]) }, { keys: storeOf([[2, keyOf(2)]]) })
  match((await refused(keyed, 'KEY_RETIRED', 'dial')).message, /version 1 .* 2/)
  equal(keyed.fromDial.filter(isProof).length, 0)
})

test('the highest common version is used', async () => {
  const both = storeOf([
    [1, keyOf(1)],
    [2, keyOf(2)],
  ])
  const keyed = new KeyedPair({ keys: both }, { keys: both })
  await keyed.run()
  ok(keyed.isReady)
  equal(keyed.fromDial.find(isProof)?.meta.readUInt32LE(4), 2)
})

test('an offer cut down to the older key on the way is noticed', async () => {
  const both = storeOf([
    [1, keyOf(1)],
    [2, keyOf(2)],
  ])
  const keyed = new KeyedPair({ keys: both }, { keys: both })
  keyed.onTheWay(
    (frames) => frames,
    (frames) =>
      frames.map((frame) => {
        if (!isProof(frame) || frame.meta[0] !== 1) return frame
        const meta = Buffer.from(frame.meta.subarray(0, frame.meta.length - 4))
        meta[36] = 1
        return { ...frame, meta }
      }),
  )
  await refused(keyed, 'WRONG_KEY')
})

test('another cluster with the same name: WRONG_CLUSTER, before anything is proved', async () => {
  const server = { keys: storeOf([[1, keyOf(1)]], OTHER_UUID), uuid: OTHER_UUID }
  const keyed = new KeyedPair(undefined, server)
  await refused(keyed, 'WRONG_CLUSTER', 'dial')
  equal(keyed.fromDial.filter(isProof).length, 0)
})

test('a host without a key: KEY_MISSING with the next step; so does a server without one', async () => {
  const error = await refused(new KeyedPair({}), 'KEY_MISSING')
  match(error.next ?? '', /cairn -c alpha auth-node/)
  const missing = {
    current: () => {
      throw new CairnError('KEY_MISSING', 'no file')
    },
    replace: () => {},
    onChange: () => () => {},
  }
  await refused(new KeyedPair(undefined, { keys: missing }), 'KEY_MISSING', 'accept')
})

test('a server that does not authenticate is left alone: WRONG_PROTOCOL', async () => {
  const keyed = new KeyedPair(undefined, {})
  await keyed.run()
  equal(keyed.pair.dial.refusal?.code, 'WRONG_PROTOCOL')
  equal(keyed.pair.dial.state, 'closed')
})

test('a role that was changed on the way: WRONG_KEY', async () => {
  const keyed = new KeyedPair()
  const hello = identityOf('admin')()
  keyed.onTheWay(
    (frames) =>
      frames.map((frame) =>
        frame.kind === FrameKind.hello
          ? { ...frame, meta: encodeMessage({ versions: [1], features: 1, ...hello }) }
          : frame,
      ),
    (frames) => frames,
  )
  await refused(keyed, 'WRONG_KEY')
})

test('a handshake that was recorded and is played again: WRONG_KEY', async () => {
  const recorded = new KeyedPair()
  await recorded.run()
  ok(recorded.isReady)
  const replayed = new KeyedPair()
  const script = recorded.fromDial.filter((frame) => frame.kind === FrameKind.hello || isProof(frame))
  replayed.onTheWay(
    (frames) => frames.map((frame, index) => (index === 0 ? (script.shift() ?? frame) : frame)),
    (frames) => frames,
  )
  await refused(replayed, 'WRONG_KEY')
})

test("one's own proof sent back is no proof of the other side", async () => {
  const keyed = new KeyedPair()
  keyed.onTheWay(
    (frames) => frames,
    (frames) =>
      frames.map((frame) => {
        if (!isProof(frame) || frame.meta[0] !== 3) return frame
        const proof = keyed.fromDial.find(isProof)?.meta.subarray(-32) ?? keyOf(0)
        return { ...frame, meta: Buffer.concat([frame.meta.subarray(0, 4), proof]) }
      }),
  )
  await keyed.run()
  equal(keyed.pair.dial.refusal?.code, 'WRONG_KEY')
})

test('the proof of one connection does not open another: an attacker between two of them', async () => {
  // The victim dials the attacker, who passes the challenge of a third server on, and hands the answer there.
  const toServer = new KeyedPair({ keys: storeOf([[1, keyOf(7)]]), role: 'cs' })
  const victim = new KeyedPair()
  let challenge: Buffer | null = null
  toServer.onTheWay(
    (frames) => frames.filter((frame) => !isProof(frame)),
    (frames) => {
      challenge ??= frames.find(isProof)?.meta ?? null
      return frames
    },
  )
  await toServer.run()
  victim.onTheWay(
    (frames) => frames,
    (frames) =>
      frames.map((frame) =>
        isProof(frame) && frame.meta[0] === 1 ? { ...frame, meta: challenge ?? frame.meta } : frame,
      ),
  )
  await victim.run()
  const answer = victim.fromDial.find(isProof)
  ok(answer !== undefined)
  toServer.pair.acceptSide.handler?.onData(bytesOf([answer]))
  await refused(toServer, 'WRONG_KEY', 'accept')
})

test('only tags are known as protection: an offer of encryption alone is WRONG_PROTOCOL', async () => {
  const keyed = new KeyedPair()
  keyed.onTheWay(
    (frames) => frames,
    (frames) =>
      frames.map((frame) => {
        if (!isProof(frame)) return frame
        const meta = Buffer.from(frame.meta)
        meta.writeUInt16LE(2, 2)
        return { ...frame, meta }
      }),
  )
  await refused(keyed, 'WRONG_PROTOCOL', 'dial')
})

test('every flipped bit of the handshake is refused', async () => {
  const sizes = [
    { kind: 1, sizeBytes: 41 },
    { kind: 2, sizeBytes: 72 },
    { kind: 3, sizeBytes: 36 },
  ]
  for (const { kind, sizeBytes } of sizes) {
    for (let bit = 0; bit < sizeBytes * 8; bit += 3) {
      const keyed = new KeyedPair()
      const flip = (frames: Frame[]): Frame[] =>
        frames.map((frame) => {
          if (!isProof(frame) || frame.meta[0] !== kind) return frame
          const meta = Buffer.from(frame.meta)
          meta[bit >> 3] = (meta[bit >> 3] ?? 0) ^ (1 << (bit & 7))
          return { ...frame, meta }
        })
      keyed.onTheWay(flip, flip)
      await keyed.run()
      equal(keyed.pair.dial.state === 'ready', false, `message ${kind}, bit ${bit}`)
      deepEqual(keyed.asked, [])
    }
  }
})

test('every message that was cut short or is longer is refused', async () => {
  for (const kind of [1, 2, 3]) {
    for (const change of [-73, -33, -4, -1, 1, 4]) {
      const keyed = new KeyedPair()
      const resize = (frames: Frame[]): Frame[] =>
        frames.map((frame) => {
          if (!isProof(frame) || frame.meta[0] !== kind) return frame
          const meta = Buffer.alloc(Math.max(0, frame.meta.length + change))
          frame.meta.copy(meta)
          return { ...frame, meta }
        })
      keyed.onTheWay(resize, resize)
      await keyed.run()
      equal(keyed.pair.dial.state === 'ready', false, `message ${kind}, ${change} bytes`)
    }
  }
})

test('a request before the proof is not served, whatever it is', async () => {
  for (const kind of [
    FrameKind.call,
    FrameKind.notify,
    FrameKind.dataRequest,
    FrameKind.ping,
    FrameKind.result,
  ]) {
    const keyed = new KeyedPair()
    const request = {
      kind,
      requestId: 1,
      meta: encodeMessage(['test.echo', { text: 'x' }]),
      payload: Buffer.alloc(0),
    }
    keyed.onTheWay(
      (frames) => frames.map((frame) => (isProof(frame) ? request : frame)),
      (frames) => frames,
    )
    await keyed.run()
    equal(keyed.pair.accept.state, 'closed')
    deepEqual(keyed.asked, [])
  }
})

test('one answer to a challenge: nobody tries a second proof on the same connection', async () => {
  const keyed = new KeyedPair({ keys: storeOf([[1, keyOf(2)]]) })
  keyed.onTheWay(
    (frames) => frames.flatMap((frame) => (isProof(frame) ? [frame, frame] : [frame])),
    (frames) => frames,
  )
  await refused(keyed, 'BAD_MESSAGE')
})

test('garbage instead of the proof never gets in, and never breaks the server', async () => {
  const garbage = fc.record({
    kind: fc.integer({ min: 1, max: 12 }),
    meta: fc.uint8Array({ maxLength: 120 }),
    first: fc.integer({ min: 0, max: 5 }),
  })
  await fc.assert(
    fc.asyncProperty(fc.array(garbage, { minLength: 1, maxLength: 4 }), async (messages) => {
      const keyed = new KeyedPair()
      const frames = messages.map(({ kind, meta, first }) => {
        const bytes = Buffer.from(meta)
        if (bytes.length > 1) {
          bytes[0] = first
          bytes[1] = 1
        }
        return { kind, requestId: 0, meta: bytes, payload: Buffer.alloc(0) }
      })
      keyed.onTheWay(
        (sent) => sent.flatMap((frame) => (isProof(frame) ? frames : [frame])),
        (sent) => sent,
      )
      await keyed.run()
      equal(keyed.pair.accept.state, 'closed')
    }),
    { numRuns: 60 },
  )
})

test('the role auth: let in without a key where passwords are served, and nowhere else', async () => {
  const open = new KeyedPair({ role: 'auth' }, { keys: storeOf([[1, keyOf(1)]]), admitsPasswords: true })
  await open.run()
  ok(open.isReady)
  await refused(new KeyedPair({ role: 'auth' }), 'REFUSED')
})
