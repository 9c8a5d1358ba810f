/** Proves over real TCP on loopback: accept limits, reconnection with back-off, states, refusals, throughput of mixed traffic. */
import { deepEqual, equal, ok, rejects } from 'node:assert/strict'
import { test } from 'node:test'
import { Type } from '@sinclair/typebox'
import { BufferPool } from '../base/buffer-pool.ts'
import { CairnError } from '../base/errors.ts'
import { MIB } from '../base/units.ts'
import type { Address } from '../platform/network.ts'
import { NodeClock } from '../platform/node/clock.ts'
import { NodeNetwork } from '../platform/node/network.ts'
import { nodeRandom } from '../platform/node/random.ts'
import { pageChecksums, verifyPageChecksums } from './checksum.ts'
import { DataOp } from './data.ts'
import { emptyDataAnswer, emptyDataRequest } from './data-codec.ts'
import { Dialer } from './dialer.ts'
import { identityOf, type LogLine, recordingLogger } from './manual-pair.ts'
import { method } from './messages/method.ts'
import { WireServer, type WireServerOptions } from './server.ts'
import type { DialerState, Peer } from './types.ts'

const table = {
  'test.echo': method(Type.Object({ n: Type.Number() }), Type.Object({ n: Type.Number() })),
} as const
const platform = {
  clock: new NodeClock(),
  network: new NodeNetwork(),
  pool: new BufferPool({ poison: true }),
}
const anyPort = { host: '127.0.0.1', port: 0 }

async function startServer(
  address: Address = anyPort,
  more: Partial<WireServerOptions> = {},
): Promise<WireServer> {
  const server = new WireServer({
    ...platform,
    logger: recordingLogger([]),
    identity: identityOf('server'),
    onPeer: (peer) => peer.serve(table, { 'test.echo': ({ n }) => ({ n }) }),
    ...more,
  })
  await server.listen(address)
  return server
}

interface Dialled {
  readonly dialer: Dialer
  readonly log: LogLine[]
  /** Resolves when the dialer gets into the state (again). */
  readonly reach: (state: DialerState) => Promise<void>
}

function dial(address: Address): Dialled {
  const log: LogLine[] = []
  const waiting: { state: DialerState; resolve: () => void }[] = []
  const dialer = new Dialer({
    ...platform,
    random: nodeRandom,
    logger: recordingLogger(log),
    address,
    identity: identityOf('client'),
    backoffMinMs: 5,
    backoffMaxMs: 20,
    onState: (state) => {
      for (const waiter of waiting.splice(0)) {
        if (waiter.state === state) waiter.resolve()
        else waiting.push(waiter)
      }
    },
  }).start()
  const reach = (state: DialerState): Promise<void> =>
    new Promise((resolve) => waiting.push({ state, resolve }))
  return { dialer, log, reach }
}

test('a dialer connects again by itself after the server restarted', async () => {
  let server = await startServer()
  const { address } = server
  const { dialer, reach } = dial(address)
  await dialer.ready(5000)
  deepEqual(await dialer.caller(table).call('test.echo', { n: 1 }), { n: 1 })
  const lost = reach('waiting')
  await server.close('restart')
  await lost
  equal(dialer.peer, null)
  await rejects(dialer.caller(table).call('test.echo', { n: 2 }), { code: 'DISCONNECTED' })
  server = await startServer(address)
  await dialer.ready(5000)
  deepEqual(await dialer.caller(table).call('test.echo', { n: 3 }), { n: 3 })
  dialer.close('end of the test')
  equal(dialer.state, 'closed')
  await rejects(dialer.ready(1000), { code: 'DISCONNECTED' })
  await server.close('end of the test')
})

test('nobody there: waits with back-off, tells TIMED_OUT with the reason, logs each loss once', async () => {
  const server = await startServer()
  const { address } = server
  await server.close('only the port was wanted')
  const { dialer, log } = dial(address)
  await rejects(dialer.ready(400), { code: 'TIMED_OUT', message: /ECONNREFUSED/ })
  ok(log.length >= 2 && log.length < 100, `${log.length} attempts in 400 ms`)
  dialer.close('end of the test')
})

test('a refusal is what `ready` rejects with', async () => {
  const server = await startServer(anyPort, {
    admit: () => {
      throw new CairnError('STARTING', 'loading')
    },
  })
  const { dialer } = dial(server.address)
  await rejects(dialer.ready(200), { code: 'STARTING' })
  dialer.close('end of the test')
  await server.close('end of the test')
})

test('connections beyond the limit are closed at once, and room comes back', async () => {
  const server = await startServer(anyPort, { connectionCountMax: 2 })
  const [one, two] = [dial(server.address), dial(server.address)]
  await one.dialer.ready(5000)
  await two.dialer.ready(5000)
  const three = dial(server.address)
  await three.reach('waiting')
  equal(server.connectionCount, 2)
  one.dialer.close('makes room')
  await three.dialer.ready(5000)
  two.dialer.close('end of the test')
  three.dialer.close('end of the test')
  await server.close('end of the test')
})

test('a port that is taken is an error of listen', async () => {
  const server = await startServer()
  await rejects(startServer(server.address), { code: 'EADDRINUSE' })
  await server.close('end of the test')
})

function echoData(peer: Peer): void {
  const answer = emptyDataAnswer()
  peer.serve(table, { 'test.echo': ({ n }) => ({ n }) })
  peer.onData((request, borrowedTable, payload, responder) => {
    answer.length = request.length
    answer.code =
      payload !== null && verifyPageChecksums(payload, 0, borrowedTable) < 0 ? '' : 'FRAME_CHECKSUM'
    responder.respond(answer, Buffer.from(borrowedTable), payload)
  })
}

test('large and small data, calls in between, both directions full: everything verifies', async () => {
  const server = await startServer(anyPort, { onPeer: echoData })
  const { dialer } = dial(server.address)
  const peer = await dialer.ready(5000)
  const sizes = [4096, MIB, 1, 70_000, 16_384, 16_385]
  const transfers = Array.from({ length: 120 }, (_, i) => {
    const length = sizes[i % sizes.length] as number
    const payload = Buffer.alloc(length, i)
    const request = { ...emptyDataRequest(), op: DataOp.write, length }
    return new Promise<void>((resolve, reject) => {
      peer.sendData(
        request,
        pageChecksums(payload, 0),
        payload,
        20_000,
        (error, answer, answerTable, back) => {
          if (error !== null) reject(error)
          else if (answer?.code !== '' || back === null || answerTable === null)
            reject(new Error(answer?.code))
          else {
            equal(verifyPageChecksums(back, 0, answerTable), -1)
            equal(back.equals(payload), true)
            platform.pool.release(back)
            resolve()
          }
        },
      )
    })
  })
  const calls = Array.from({ length: 100 }, (_, n) => dialer.caller(table).call('test.echo', { n }))
  await Promise.all(transfers)
  deepEqual(
    (await Promise.all(calls)).map(({ n }) => n),
    Array.from({ length: 100 }, (_, n) => n),
  )
  equal(peer.queuedBytes, 0)
  dialer.close('end of the test')
  await server.close('end of the test')
})
