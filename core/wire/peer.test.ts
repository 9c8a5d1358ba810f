/** Proves what a peer promises: handshake, calls, data requests, time-outs, bounds, one reason for each end. */
import { deepEqual, equal, ok, rejects } from 'node:assert/strict'
import { test } from 'node:test'
import { Type } from '@sinclair/typebox'
import { assert } from '../base/assert.ts'
import { CairnError } from '../base/errors.ts'
import { pageChecksums, verifyPageChecksums } from './checksum.ts'
import { DataOp } from './data.ts'
import { emptyDataAnswer, emptyDataRequest } from './data-codec.ts'
import { identityOf, ManualPair } from './manual-pair.ts'
import { method } from './messages/method.ts'
import type { Authenticator, DataResponder } from './types.ts'

const table = {
  'test.add': method(
    Type.Object({ a: Type.Number(), b: Type.Number() }),
    Type.Object({ sum: Type.Number() }),
  ),
  'test.slow': method(Type.Object({}), Type.Object({})),
  'test.bytes': method(
    Type.Object({ value: Type.Uint8Array() }),
    Type.Object({ value: Type.Uint8Array(), missing: Type.Optional(Type.Number()) }),
  ),
} as const
const never = new Promise<never>(() => {})
const plainHandlers = {
  'test.add': ({ a, b }: { a: number; b: number }) => ({ sum: a + b }),
  'test.slow': () => never,
  'test.bytes': ({ value }: { value: Uint8Array }) => ({ value, missing: undefined as never }),
}

async function readyPair(...options: ConstructorParameters<typeof ManualPair>): Promise<ManualPair> {
  const pair = new ManualPair(...options)
  await pair.run()
  equal(pair.dial.state, 'ready')
  equal(pair.accept.state, 'ready')
  pair.accept.serve(table, plainHandlers)
  return pair
}

test('hello: both sides know each other, the highest common version and the common features', async () => {
  const pair = await readyPair(
    { versions: [1, 2, 3, 9], features: 0b0111, identity: identityOf('cs', { session: 2 ** 40 }) },
    { versions: [2, 3, 4], features: 0b1110, identity: identityOf('mds', { clusterUuid: 'uuid', level: 2 }) },
  )
  deepEqual(
    { ...pair.accept.remoteIdentity },
    { ...identityOf('cs', { session: 2 ** 40 })(), protocolVersion: 3, features: 0b0110 },
  )
  equal(pair.dial.remoteIdentity?.role, 'mds')
  equal(pair.dial.remoteIdentity?.protocolVersion, 3)
  equal(pair.dial.remoteIdentity?.clusterUuid, 'uuid')
  equal(pair.dial.remoteIdentity?.level, 2)
  equal(pair.accept.remoteIdentity?.level, undefined)
})

for (const [what, dial, accept, code] of [
  ['no common version', { versions: [1] }, { versions: [2] }, 'WRONG_PROTOCOL'],
  ['another cluster', { identity: identityOf('client', { clusterName: 'beta' }) }, {}, 'WRONG_CLUSTER'],
  [
    'another cluster of the same name',
    { identity: identityOf('client', { clusterUuid: 'one' }) },
    { identity: identityOf('mds', { clusterUuid: 'two' }) },
    'WRONG_CLUSTER',
  ],
  [
    'not admitted',
    {},
    {
      admit: () => {
        throw new CairnError('STARTING', 'come back later')
      },
    },
    'STARTING',
  ],
] as const)
  test(`refused with a code: ${what}`, async () => {
    const pair = new ManualPair(dial, accept)
    await pair.run()
    equal(pair.dial.refusal?.code, code)
    equal(pair.dial.state, 'closed')
    equal(pair.accept.state, 'closed')
    equal(pair.readyPeers.length, 0)
  })

test('an empty cluster name fits any cluster', async () => {
  await readyPair({ identity: identityOf('client', { clusterName: '' }) })
})

test('authentication stands between hello and ready', async () => {
  const authenticator = (secret: string): Authenticator => ({
    start(side, _remote, channel) {
      if (side === 'accept') channel.send(Buffer.from('challenge'))
      return {
        onMessage(message) {
          if (side === 'dial') {
            channel.send(Buffer.from(`${message.toString()} ${secret}`))
            channel.accept()
          } else if (message.toString() === `challenge ${secret}`) channel.accept()
          else channel.refuse(new CairnError('REFUSED', 'wrong secret'))
        },
      }
    },
  })
  await readyPair({ authenticator: authenticator('x') }, { authenticator: authenticator('x') })
  const pair = new ManualPair({ authenticator: authenticator('x') }, { authenticator: authenticator('y') })
  await pair.run()
  equal(pair.accept.state, 'closed')
  equal(pair.readyPeers.includes(pair.accept), false)
  equal(pair.accept.refusal?.code, 'REFUSED')
})

test('calls: results, many in flight, in pieces of any size', async () => {
  for (const pieceBytes of [1, 7, 65_536]) {
    const pair = await readyPair()
    const caller = pair.dial.caller(table)
    const answers = Promise.all(
      Array.from({ length: 50 }, (_, i) => caller.call('test.add', { a: i, b: 0.5 })),
    )
    const binary = caller.call('test.bytes', { value: new Uint8Array([0, 255]) })
    await pair.run(pieceBytes)
    deepEqual(
      await answers,
      Array.from({ length: 50 }, (_, i) => ({ sum: i + 0.5 })),
    )
    deepEqual([...(await binary).value], [0, 255])
    equal(pair.dial.inFlightCount, 0)
    equal(pair.dial.queuedBytes, 0)
  }
})

test('errors of handlers: wire codes cross, everything else is INTERNAL and logged', async () => {
  const pair = await readyPair()
  pair.accept.serve(table, {
    'test.add': () => {
      throw new CairnError('ENOENT', 'no such thing', { retryable: true, next: 'Look elsewhere.' })
    },
    'test.slow': () => Promise.reject(new CairnError('PRIVATE_CODE', 'secret detail')),
    'test.bytes': () => ({ value: 'no binary' as unknown as Uint8Array }),
  })
  const caller = pair.dial.caller(table)
  const calls = [
    rejects(caller.call('test.add', { a: 1, b: 2 }), {
      code: 'ENOENT',
      message: 'no such thing',
      retryable: true,
      next: 'Look elsewhere.',
    }),
    rejects(caller.call('test.slow', {}), { code: 'INTERNAL' }),
    rejects(caller.call('test.bytes', { value: Buffer.alloc(1) }), { code: 'BAD_MESSAGE' }),
    rejects(caller.call('test.add', { a: 'x' as unknown as number, b: 2 }), { code: 'BAD_MESSAGE' }),
    rejects(pair.dial.caller({ 'test.other': table['test.slow'] }).call('test.other', {}), {
      code: 'UNKNOWN_METHOD',
    }),
  ]
  await pair.run()
  await Promise.all(calls)
  equal(
    pair.log.some(({ fields }) => String(fields['error']).includes('secret detail')),
    true,
  )
  equal(pair.dial.state, 'ready')
})

test('a failed assertion in a handler is not answered: it goes up and ends the process', async () => {
  const pair = await readyPair()
  pair.accept.serve(table, {
    ...plainHandlers,
    'test.add': () => {
      assert(false, 'a bug')
    },
  })
  pair.dial
    .caller(table)
    .call('test.add', { a: 1, b: 2 })
    .catch(() => {})
  await rejects(pair.run(), { name: 'AssertionError', message: 'a bug' })
})

test('notifications arrive in order, both ways', async () => {
  const pair = await readyPair()
  const seen: number[] = []
  const handlers = {
    ...plainHandlers,
    'test.add': ({ a }: { a: number }) => {
      seen.push(a)
      return { sum: 0 }
    },
  }
  pair.accept.serve(table, handlers)
  pair.dial.serve(table, handlers)
  for (let i = 0; i < 5; i++) equal(pair.dial.caller(table).notify('test.add', { a: i, b: 0 }), true)
  await pair.run()
  equal(pair.accept.caller(table).notify('test.add', { a: 5, b: 0 }), true)
  await pair.run()
  deepEqual(seen, [0, 1, 2, 3, 4, 5])
})

test('a call without an answer times out; its late answer finds nobody', async () => {
  const pair = await readyPair()
  let finish = (): void => {}
  pair.accept.serve(table, {
    ...plainHandlers,
    'test.slow': () =>
      new Promise((resolve) => {
        finish = () => resolve({})
      }),
  })
  const call = rejects(pair.dial.caller(table).call('test.slow', {}, { timeoutMs: 2000 }), {
    code: 'TIMED_OUT',
    retryable: true,
  })
  await pair.pass(1500)
  equal(pair.dial.inFlightCount, 1)
  await pair.pass(1000)
  await call
  finish()
  await pair.run()
  equal(pair.dial.state, 'ready')
})

function serveEcho(pair: ManualPair): void {
  const answer = emptyDataAnswer()
  pair.accept.onData((request, borrowedTable, payload, responder) => {
    answer.op = request.op
    answer.length = request.length
    answer.incarnation = request.incarnation
    if (payload === null) {
      answer.code = 'NO_REPLICA'
      responder.respond(answer, null, null)
      return
    }
    const bad = verifyPageChecksums(payload, request.offset, borrowedTable)
    answer.code = bad < 0 ? '' : 'FRAME_CHECKSUM'
    responder.respond(answer, Buffer.from(borrowedTable), payload)
  })
}

test('data requests: fields, tables and payloads of all sizes come through unchanged', async () => {
  const pair = await readyPair()
  serveEcho(pair)
  let answered = 0
  for (const length of [1, 100, 4096, 5000, 20_000, 1 << 20]) {
    const request = {
      ...emptyDataRequest(),
      op: DataOp.write,
      offset: 4000,
      length,
      incarnation: 2 ** 52 + 1,
    }
    const payload = Buffer.alloc(length, length % 251)
    const checksums = pageChecksums(payload, 4000)
    pair.dial.sendData(request, checksums, payload, 1000, (error, answer, answerTable, answerPayload) => {
      equal(error, null)
      equal(answer?.code, '')
      equal(answer?.length, length)
      equal(answer?.incarnation, 2 ** 52 + 1)
      equal(answerTable?.length, checksums.byteLength)
      ok(answerPayload !== null && answerPayload.equals(payload))
      pair.pool.release(answerPayload)
      answered++
    })
  }
  pair.dial.sendData(emptyDataRequest(), null, null, 1000, (error, answer, answerTable, payload) => {
    equal(error, null)
    deepEqual([answer?.code, answerTable?.length, payload], ['NO_REPLICA', 0, null])
    answered++
  })
  await pair.run(9999)
  equal(answered, 7)
})

test('a data request without an answer times out; the payload of the late answer goes back to the pool', async () => {
  const pair = await readyPair()
  const waiting: DataResponder[] = []
  pair.accept.onData((_request, _table, _payload, responder) => waiting.push(responder))
  const errors: string[] = []
  pair.dial.sendData(emptyDataRequest(), null, null, 1000, (error) => errors.push(error?.code ?? ''))
  await pair.pass(2000)
  deepEqual(errors, ['TIMED_OUT'])
  const retainedBytes = pair.pool.retainedBytes
  const payload = pair.pool.acquire(100_000)
  waiting[0]?.respond(emptyDataAnswer(), null, payload)
  await pair.run()
  deepEqual(errors, ['TIMED_OUT'])
  ok(pair.pool.retainedBytes > retainedBytes, 'sent and received buffers are both back')
})

test('everything pending fails with DISCONNECTED when the connection breaks, and the reason is logged once', async () => {
  const pair = await readyPair()
  const failures: string[] = []
  pair.accept.onData(() => {})
  pair.dial.sendData(emptyDataRequest(), null, null, 60_000, (error) => failures.push(error?.code ?? ''))
  const call = rejects(pair.dial.caller(table).call('test.slow', {}), { code: 'DISCONNECTED' })
  const reasons: string[] = []
  pair.dial.onClosed((reason) => reasons.push(reason))
  await pair.run()
  pair.acceptSide.destroy('cable cut')
  await pair.run()
  await call
  deepEqual(failures, ['DISCONNECTED'])
  deepEqual(reasons, ['closed by the other side'])
  deepEqual(pair.closeReasons.sort(), ['cable cut', 'closed by the other side'])
  pair.dial.sendData(emptyDataRequest(), null, null, 1, (error) => failures.push(error?.code ?? ''))
  deepEqual(failures, ['DISCONNECTED', 'DISCONNECTED'])
  await rejects(pair.dial.caller(table).call('test.slow', {}), { code: 'DISCONNECTED' })
  equal(pair.dial.caller(table).notify('test.slow', {}), false)
})

test('checksums of a changed payload are found by their page', () => {
  const payload = Buffer.alloc(10_000, 1)
  const checksums = pageChecksums(payload, 100)
  const bytes = Buffer.from(checksums.buffer)
  equal(checksums.length, 3)
  equal(verifyPageChecksums(payload, 100, bytes), -1)
  payload[5000] = 2
  equal(verifyPageChecksums(payload, 100, bytes), 1)
  equal(verifyPageChecksums(payload, 100, bytes.subarray(4)), 3)
  equal(pageChecksums(Buffer.alloc(0), 0).length, 0)
})
