/** Proves the Connection contract on real TCP: order, back-pressure, pause, ends with one reason. */
import { equal, match, ok } from 'node:assert/strict'
import { test } from 'node:test'
import type { Connection, ConnectionHandler, Listener } from '../network.ts'
import { NodeNetwork } from './network.ts'

const network = new NodeNetwork()

function promised<T>(): { promise: Promise<T>; resolve: (value: T) => void } {
  return Promise.withResolvers<T>()
}

interface Joined {
  readonly listener: Listener
  readonly client: Connection
  readonly server: Connection
  readonly clientClosed: Promise<string>
  readonly serverClosed: Promise<string>
}

async function join(
  clientHandler: Partial<ConnectionHandler>,
  serverHandler: Partial<ConnectionHandler>,
): Promise<Joined> {
  const accepted = promised<Connection>()
  const opened = promised<void>()
  const clientClosed = promised<string>()
  const serverClosed = promised<string>()
  const quiet = { onOpen() {}, onData() {}, onDrain() {} }
  const listener = await network.listen({ host: '127.0.0.1', port: 0 }, (connection) => {
    connection.start({ ...quiet, onClose: serverClosed.resolve, ...serverHandler })
    accepted.resolve(connection)
  })
  const client = network.connect(listener.address, 2000)
  client.start({ ...quiet, onClose: clientClosed.resolve, ...clientHandler, onOpen: () => opened.resolve() })
  await opened.promise
  return {
    listener,
    client,
    server: await accepted.promise,
    clientClosed: clientClosed.promise,
    serverClosed: serverClosed.promise,
  }
}

test('lists of buffers arrive in order; onSent runs when they are gone; the end has one reason each', async () => {
  const received: Buffer[] = []
  const all = promised<void>()
  let count = 0
  const joined = await join(
    {},
    {
      onData(borrowed) {
        received.push(Buffer.from(borrowed))
        count += borrowed.length
        if (count === 300_006) all.resolve()
      },
    },
  )
  const sent = promised<void>()
  joined.client.write([Buffer.from('abc'), Buffer.alloc(300_000, 'x'), Buffer.from('def')], sent.resolve)
  await Promise.all([all.promise, sent.promise])
  const text = Buffer.concat(received).toString()
  match(text, /^abcx+def$/)
  joined.client.destroy('had enough')
  equal(await joined.clientClosed, 'had enough')
  equal(await joined.serverClosed, 'closed by the other side')
  const afterwards = promised<void>()
  joined.client.write([Buffer.from('late')], afterwards.resolve)
  await afterwards.promise
  await joined.listener.close()
})

test('a reader that pauses makes the writer see back-pressure, and drain when it resumes', async () => {
  const drained = promised<void>()
  let received = 0
  const all = promised<void>()
  const joined = await join(
    { onDrain: drained.resolve },
    {
      onData(borrowed) {
        received += borrowed.length
        if (received === written) all.resolve()
      },
    },
  )
  joined.server.pause()
  let written = 0
  const block = Buffer.alloc(1 << 20)
  while (joined.client.write([block])) {
    written += block.length
    ok(written < 1 << 30, 'the writer is told to stop')
    await new Promise((resolve) => setImmediate(resolve))
  }
  written += block.length
  ok(joined.client.bufferedBytes > 0)
  joined.server.resume()
  await Promise.all([drained.promise, all.promise])
  joined.client.destroy('done')
  await joined.serverClosed
  await joined.listener.close()
})

test('an address where nobody listens, and a listener that closes', async () => {
  const joined = await join({}, {})
  const { address } = joined.listener
  await joined.listener.close()
  match(await joined.clientClosed, /closed by the other side|ECONNRESET/)
  const closed = promised<string>()
  network.connect(address, 2000).start({ onOpen() {}, onData() {}, onDrain() {}, onClose: closed.resolve })
  match(await closed.promise, /ECONNREFUSED/)
})
