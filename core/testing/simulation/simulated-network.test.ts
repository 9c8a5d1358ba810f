/** The simulated network: order, partitions one way and both, cuts, silent deaths, and that runs repeat. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Connection } from '../../platform/network.ts'
import { SeededRandom } from './seeded-random.ts'
import { SimulatedClock } from './simulated-clock.ts'
import { SimulatedNetwork } from './simulated-network.ts'

const address = { host: 'b', port: 7 }

class End {
  text = ''
  closed = ''
  isOpen = false
  readonly connection: Connection

  constructor(connection: Connection) {
    this.connection = connection
    connection.start({
      onOpen: () => void (this.isOpen = true),
      onData: (borrowed) => void (this.text += borrowed.toString('latin1')),
      onDrain: () => {},
      onClose: (reason) => void (this.closed = reason),
    })
  }

  send(text: string): void {
    this.connection.write([Buffer.from(text, 'latin1')])
  }
}

async function pair(seed = 1) {
  const clock = new SimulatedClock()
  const network = new SimulatedNetwork(clock, new SeededRandom(seed))
  const [a, b] = [network.host('a'), network.host('b')]
  const accepted: End[] = []
  await b.listen(address, (connection) => accepted.push(new End(connection)))
  const near = new End(a.connect(address, 1000))
  await clock.advance(10)
  const [far] = accepted
  assert.ok(near.isOpen && far !== undefined)
  return { clock, network, a, b, near, far, accepted }
}

test('bytes arrive in order, whatever pieces they come in', async () => {
  const { clock, near, far } = await pair()
  const words = Array.from({ length: 200 }, (_, index) => `word${index} `)
  for (const word of words) near.send(word)
  await clock.advance(10)
  assert.equal(far.text, words.join(''))
})

test('a one-way partition holds one direction and lets the other pass; healing delivers', async () => {
  const { clock, network, near, far } = await pair()
  network.blockOneWay('a', 'b')
  near.send('held')
  far.send('through')
  await clock.advance(100)
  assert.equal(far.text, '')
  assert.equal(near.text, 'through')
  network.heal()
  await clock.advance(10)
  assert.equal(far.text, 'held')
})

test('connecting into a partition times out', async () => {
  const { clock, network, a } = await pair()
  network.partition('a', 'b')
  const late = new End(a.connect(address, 1000))
  await clock.advance(999)
  assert.equal(late.closed, '')
  await clock.advance(2)
  assert.equal(late.closed, 'timed out')
})

test('a cut resets both ends; nobody listening refuses', async () => {
  const { clock, network, a, near, far } = await pair()
  network.cut('a', 'b')
  await clock.advance(1)
  assert.deepEqual([near.closed, far.closed], ['connection reset', 'connection reset'])
  const refused = new End(a.connect({ host: 'b', port: 8 }, 1000))
  await clock.advance(10)
  assert.equal(refused.closed, 'connection refused')
})

test('a killed process resets its connections; a power cut says nothing', async () => {
  const killed = await pair()
  killed.b.stop()
  await killed.clock.advance(1)
  assert.equal(killed.near.closed, 'connection reset')
  const silent = await pair()
  silent.b.stop(true)
  silent.near.send('into the dark')
  await silent.clock.advance(10_000)
  assert.equal(silent.near.closed, '')
})

test('a process that was killed while it started takes no port and reaches nobody', async () => {
  const { clock, network, a, b } = await pair()
  b.stop()
  const successor = network.host('b')
  void b.listen(address, () => assert.fail('it is gone'))
  let connectionCount = 0
  await successor.listen(address, () => void connectionCount++)
  a.stop()
  a.connect(address, 1000)
  await clock.advance(10)
  assert.equal(connectionCount, 0)
})

test('the same seed gives the same run', async () => {
  const run = async (seed: number) => {
    const { clock, near, far } = await pair(seed)
    const arrivals: number[] = []
    for (let count = 0; count < 20; count++) {
      near.send('x')
      await clock.runUntil(() => far.text.length > count, 1000)
      arrivals.push(clock.nowMs())
    }
    return arrivals
  }
  assert.deepEqual(await run(3), await run(3))
  assert.notDeepEqual(await run(3), await run(4))
})
