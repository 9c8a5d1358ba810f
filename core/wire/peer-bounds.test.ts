/** Proves that garbage, silence, slowness and greed end or slow down one connection, in bounded memory. */
import { deepEqual, equal, ok, rejects } from 'node:assert/strict'
import { test } from 'node:test'
import { Type } from '@sinclair/typebox'
import { Prng } from '../base/prng.ts'
import { KIB, MIB } from '../base/units.ts'
import { DataOp } from './data.ts'
import { emptyDataAnswer, emptyDataRequest } from './data-codec.ts'
import { FRAME_HEADER_BYTES, FrameKind, sealFrame } from './frame.ts'
import { identityOf, ManualClock, ManualConnection, ManualPair, recordingLogger } from './manual-pair.ts'
import { method } from './messages/method.ts'
import { WirePeer } from './peer.ts'
import type { DataResponder } from './types.ts'

const table = {
  'test.slow': method(Type.Object({}), Type.Object({})),
  'test.large': method(Type.Object({}), Type.Object({ value: Type.Uint8Array() })),
} as const

async function readyPair(...options: ConstructorParameters<typeof ManualPair>): Promise<ManualPair> {
  const pair = new ManualPair(...options)
  await pair.run()
  equal(pair.dial.state, 'ready')
  return pair
}

function frame(kind: number, meta: Buffer, payloadBytes = 0): Buffer {
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES + meta.length)
  meta.copy(bytes, FRAME_HEADER_BYTES)
  sealFrame(bytes, 0, kind, 1, meta.length, payloadBytes)
  return Buffer.concat([bytes, Buffer.alloc(payloadBytes)])
}

const hostile: Record<string, { bytes: Buffer; reason: RegExp }> = {
  garbage: { bytes: Buffer.from('GET / HTTP/1.1\r\nHost: somewhere.example\r\n\r\n'), reason: /bad magic/ },
  'a malformed data request': { bytes: frame(FrameKind.dataRequest, Buffer.alloc(48)), reason: /malformed/ },
  'a short data request': { bytes: frame(FrameKind.dataRequest, Buffer.alloc(3, 1), 9), reason: /malformed/ },
  'a second hello': { bytes: frame(FrameKind.hello, Buffer.alloc(0)), reason: /kind 1 after/ },
  'a payload on a call': { bytes: frame(FrameKind.call, Buffer.alloc(1), 5), reason: /payload in a frame/ },
}
for (const [what, { bytes, reason }] of Object.entries(hostile))
  test(`closed with a logged reason: ${what}`, async () => {
    const pair = await readyPair()
    pair.accept.onData(() => {})
    pair.acceptSide.handler?.onData(bytes)
    await pair.run()
    equal(pair.accept.state, 'closed')
    equal(pair.dial.state, 'closed')
    ok(pair.closeReasons.some((text) => reason.test(text)))
    equal(pair.closeReasons.length, 2)
    equal(pair.accept.heldBytes, 0)
  })

test('a data request, or any call, before the hello closes the connection', async () => {
  for (const kind of [FrameKind.dataRequest, FrameKind.call, FrameKind.welcome]) {
    const clock = new ManualClock()
    const pair = new ManualPair()
    const connection = new ManualConnection('stranger', clock)
    const log: Parameters<typeof recordingLogger>[0] = []
    const peer = new WirePeer({
      connection,
      side: 'accept',
      clock,
      pool: pair.pool,
      logger: recordingLogger(log),
      identity: identityOf('mds'),
      onReady: () => {},
    })
    peer.start()
    connection.handler?.onData(frame(kind, Buffer.alloc(48, 1), kind === FrameKind.dataRequest ? 100 : 0))
    equal(peer.state, 'closed')
    equal(log.length, 1)
  }
})

test('slow loris: a handshake that never ends, and a frame that never ends', async () => {
  const silent = new ManualPair()
  silent.acceptSide.takesNothing = true
  await silent.pass(6000)
  ok(silent.closeReasons.some((reason) => /no handshake in 5000 ms/.test(reason)))
  const pair = await readyPair()
  // nothing else comes in between the bytes
  pair.acceptSide.takesNothing = true
  const bytes = frame(FrameKind.call, Buffer.alloc(400))
  for (let at = 0; at < 300 && pair.accept.state === 'ready'; at++) {
    pair.acceptSide.handler?.onData(bytes.subarray(at, at + 1))
    await pair.pass(250)
  }
  equal(pair.accept.state, 'closed')
  ok(pair.closeReasons.some((reason) => /not complete in 15000 ms/.test(reason)))
})

test('an idle connection lives by pings; a dead one is closed', async () => {
  const pair = await readyPair()
  await pair.pass(60_000)
  equal(pair.dial.state, 'ready')
  equal(pair.accept.state, 'ready')
  pair.dialSide.takesNothing = true
  pair.acceptSide.takesNothing = true
  await pair.pass(21_000)
  equal(pair.dial.state, 'closed')
  ok(pair.closeReasons.some((reason) => /no sign of life|took no data/.test(reason)))
})

test('a stall of this process is not held against the peer', async () => {
  const pair = await readyPair()
  for (let i = 0; i < 20; i++) {
    pair.clock.stall(60_000)
    await pair.pass(500)
  }
  equal(pair.dial.state, 'ready')
  equal(pair.accept.state, 'ready')
})

test('own requests beyond the bound are OVERLOADED, by count and by bytes', async () => {
  const pair = await readyPair({ limits: { inFlightCountMax: 3, queuedBytesMax: 2 * MIB } })
  pair.accept.onData(() => {})
  const codes: string[] = []
  for (let i = 0; i < 5; i++)
    pair.dial.sendData(emptyDataRequest(), null, null, 60_000, (error) => codes.push(error?.code ?? ''))
  deepEqual(codes, ['OVERLOADED', 'OVERLOADED'])
  await rejects(pair.dial.caller(table).call('test.slow', {}), { code: 'OVERLOADED', retryable: true })

  const blocked = await readyPair({ limits: { queuedBytesMax: 2 * MIB } })
  blocked.acceptSide.takesNothing = true
  const payload = Buffer.alloc(MIB)
  const request = { ...emptyDataRequest(), op: DataOp.write, length: MIB }
  let overloaded = 0
  for (let i = 0; i < 10; i++)
    blocked.dial.sendData(request, null, payload, 60_000, (error) => {
      if (error?.code === 'OVERLOADED') overloaded++
    })
  equal(overloaded, 8)
  ok(blocked.dial.queuedBytes <= 3 * MIB)
})

test("a data request that timed out unsent closes the connection: its payload is the caller's again", async () => {
  const pair = await readyPair()
  pair.acceptSide.takesNothing = true
  const codes: string[] = []
  const request = { ...emptyDataRequest(), op: DataOp.write, length: MIB }
  pair.dial.sendData(request, null, Buffer.alloc(MIB), 1000, (error) => codes.push(error?.code ?? ''))
  await pair.pass(1500)
  deepEqual(codes, ['TIMED_OUT'])
  equal(pair.dial.state, 'closed')
  ok(pair.closeReasons.some((reason) => /before it could be sent/.test(reason)))
})

test('calls of the peer beyond the bound are answered OVERLOADED', async () => {
  const pair = await readyPair({}, { limits: { servedCallCountMax: 2 } })
  pair.accept.serve(table, {
    'test.slow': () => new Promise(() => {}),
    'test.large': () => ({ value: Buffer.alloc(1) }),
  })
  const calls = Array.from({ length: 4 }, () => pair.dial.caller(table).call('test.slow', {}))
  const last = [
    rejects(calls[2] as Promise<unknown>, { code: 'OVERLOADED' }),
    rejects(calls[3] as Promise<unknown>, { code: 'OVERLOADED' }),
  ]
  await pair.run()
  await Promise.all(last)
  for (const call of calls) call.catch(() => {})
  equal(pair.dial.inFlightCount, 2)
})

test('a server that is behind stops reading after its bound and goes on when it has caught up', async () => {
  const pair = await readyPair({}, { limits: { servedDataCountMax: 8 } })
  const waiting: DataResponder[] = []
  pair.accept.onData((_request, _table, payload, responder) => {
    if (payload !== null) pair.pool.release(payload)
    waiting.push(responder)
  })
  let answered = 0
  const payload = Buffer.alloc(64 * KIB)
  const request = { ...emptyDataRequest(), op: DataOp.write, length: payload.length }
  for (let i = 0; i < 100; i++)
    pair.dial.sendData(request, null, payload, 60_000, (error) => {
      equal(error, null)
      answered++
    })
  await pair.run()
  equal(waiting.length, 8)
  equal(pair.acceptSide.paused, true)
  // what has arrived and was not taken: one write of the other side at most
  ok(pair.accept.heldBytes <= 5 * MIB)
  let seenMost = 0
  while (answered < 100) {
    seenMost = Math.max(seenMost, waiting.length)
    ok(waiting.length > 0, 'it goes on')
    for (const responder of waiting.splice(0)) responder.respond(emptyDataAnswer(), null, null)
    await pair.run()
  }
  equal(seenMost, 8)
  equal(pair.acceptSide.paused, false)
})

test('small requests in one piece of socket data: dispatch stops at the bound, within the piece', async () => {
  const pair = await readyPair({}, { limits: { servedDataCountMax: 4 } })
  const waiting: DataResponder[] = []
  pair.accept.onData((_request, _table, _payload, responder) => waiting.push(responder))
  for (let i = 0; i < 500; i++) pair.dial.sendData(emptyDataRequest(), null, null, 60_000, () => {})
  await pair.run()
  equal(waiting.length, 4)
})

test('a peer that asks and does not read the answers: bounded answers, then closed', async () => {
  const pair = await readyPair({ limits: { inFlightCountMax: 4096 } })
  let served = 0
  pair.accept.onData((request, _table, _payload, responder) => {
    served++
    responder.respond(
      { ...emptyDataAnswer(), length: request.length },
      null,
      pair.pool.acquire(request.length),
    )
  })
  pair.dialSide.takesNothing = true
  const request = { ...emptyDataRequest(), op: DataOp.read, length: MIB }
  let disconnected = 0
  for (let i = 0; i < 2000; i++)
    pair.dial.sendData(request, null, null, 600_000, (error) => {
      if (error?.code === 'DISCONNECTED') disconnected++
    })
  await pair.run()
  ok(served < 40, `${served} answers of 1 MiB were made`)
  ok(pair.accept.queuedBytes < 40 * MIB)
  equal(pair.acceptSide.paused, true)
  await pair.pass(20_000)
  equal(pair.accept.state, 'closed')
  ok(pair.closeReasons.some((reason) => /took no data for 15000 ms/.test(reason)))
  equal(disconnected, 2000)
  equal(pair.accept.queuedBytes, 0)
})

test('the same with calls: large results that nobody reads stop the reading of further calls', async () => {
  const pair = await readyPair({ limits: { inFlightCountMax: 4096 } })
  let served = 0
  pair.accept.serve(table, {
    'test.slow': () => ({}),
    'test.large': () => {
      served++
      return { value: Buffer.alloc(MIB - KIB) }
    },
  })
  pair.dialSide.takesNothing = true
  const calls = Array.from({ length: 200 }, () =>
    pair.dial
      .caller(table)
      .call('test.large', {})
      .catch((error) => error.code),
  )
  await pair.run()
  ok(served < 30, `${served} results of 1 MiB were made`)
  pair.dial.close('enough')
  await pair.run()
  deepEqual([...new Set(await Promise.all(calls))], ['DISCONNECTED'])
})

test('20,000 streams of random frames never throw and never hold more than the bounds', () => {
  const random = new Prng(99)
  const clock = new ManualClock()
  const pool = new ManualPair().pool
  const kinds = Object.values(FrameKind)
  for (let run = 0; run < 20_000; run++) {
    const connection = new ManualConnection('stranger', clock)
    const side = run % 2 === 0 ? 'accept' : 'dial'
    const peer = new WirePeer({
      connection,
      side,
      clock,
      pool,
      logger: recordingLogger([]),
      identity: identityOf('mds'),
      onReady: () => {},
    })
    peer.start()
    for (let i = 0; i < 3 && peer.state !== 'closed'; i++) {
      const meta = Buffer.from(Array.from({ length: random.below(60) }, () => random.below(256)))
      connection.handler?.onData(frame(kinds[random.below(kinds.length)] as number, meta))
    }
    peer.close('end of the run')
    clock.runDeferred()
    equal(peer.heldBytes, 0)
  }
})
