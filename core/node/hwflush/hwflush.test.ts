/** The flush check on simulated disks: an honest one never fails it, one that forgets what it flushed always does. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { CairnError } from '../../base/errors.ts'
import type { Disk } from '../../platform/disk.ts'
import { SeededRandom } from '../../testing/simulation/seeded-random.ts'
import { SimulatedClock } from '../../testing/simulation/simulated-clock.ts'
import { SimulatedDisk } from '../../testing/simulation/simulated-disk.ts'
import { type SimulatedHost, SimulatedNetwork } from '../../testing/simulation/simulated-network.ts'
import { BLOCKS_PER_FILE, CounterFile, type Validation } from './counter-file.ts'
import { FlushClient } from './flush-client.ts'
import { type CacheError, FlushServer } from './flush-server.ts'

const THREADS = 3
const address = { host: 'server', port: 2515 }

class Stage {
  readonly clock = new SimulatedClock()
  readonly network: SimulatedNetwork
  readonly disk: SimulatedDisk
  readonly errors: CacheError[] = []
  readonly server: FlushServer
  validations: Validation[] = []
  outcome: CairnError | 'ended' | null = null
  #lives = 0
  #host: SimulatedHost | null = null

  private constructor(seed: number) {
    this.network = new SimulatedNetwork(this.clock, new SeededRandom(seed))
    this.disk = new SimulatedDisk({ seed, clock: this.clock })
    this.disk.faults.delayMs = 1
    this.server = new FlushServer(this.network.host('server'), {
      onClient: () => {},
      onStart: () => {},
      onCacheError: (error) => this.errors.push(error),
      onGone: () => {},
    })
  }

  static async open(seed: number): Promise<Stage> {
    const stage = new Stage(seed)
    await stage.clock.settled(stage.server.listen(address))
    return stage
  }

  /** A process with the disk, or with what stands in for it. */
  start(disk: Disk = this.disk, isNew = false): FlushClient {
    const host = this.network.host(`client ${++this.#lives}`)
    this.#host = host
    this.validations = []
    this.outcome = null
    const client = new FlushClient({
      ...{
        disk,
        network: host,
        clock: this.clock,
        server: address,
        key: 'host:/disk',
        threads: THREADS,
        isNew,
      },
      onValidated: (_thread, validation) => this.validations.push(validation),
    })
    client.run().then(
      () => {
        this.outcome = 'ended'
      },
      (error: CairnError) => {
        this.outcome = error
      },
    )
    return client
  }

  get code(): string {
    return this.outcome === null || this.outcome === 'ended' ? '' : this.outcome.code
  }

  /** Of the machine with the disk. `kept`: share of what was not synced that arrives all the same. */
  cutPower(kept?: number): void {
    this.disk.losePower(kept)
    this.#host?.stop()
  }

  known(): number[] {
    return this.server.clients[0]?.counters ?? []
  }
}

/** Says that it has flushed, and has not. */
function lying(disk: SimulatedDisk): Disk {
  return {
    open: (path, options) => {
      const file = disk.open(path, options)
      return {
        sizeBytes: () => file.sizeBytes(),
        read: (buffer, position, callback) => file.read(buffer, position, callback),
        write: (buffers, position, callback) => file.write(buffers, position, callback),
        sync: (callback) => callback(null),
        truncate: (size) => file.truncate(size),
        close: () => file.close(),
      }
    },
    exists: (path) => disk.exists(path),
    list: (path) => disk.list(path),
    makeDirectory: (path) => disk.makeDirectory(path),
    rename: (from, to) => disk.rename(from, to),
    remove: (path) => disk.remove(path),
    syncDirectory: (path, callback) => disk.syncDirectory(path, callback),
    space: () => disk.space(),
    identity: () => disk.identity(),
  }
}

test('an honest disk keeps what it flushed through any power cut, and the check goes on from there', async () => {
  for (let seed = 1; seed <= 4; seed++) {
    const stage = await Stage.open(seed)
    let before: number[] = []
    for (let life = 1; life <= 3; life++) {
      const client = stage.start()
      await stage.clock.advance(150 + 37 * seed)
      assert.equal(stage.outcome, null, `seed ${seed}`)
      assert.ok(client.counters.every((counter, thread) => counter > (before[thread] ?? 0)))
      before = stage.known()
      // what was under way is kept, lost or torn
      stage.cutPower()
      await stage.clock.advance(100)
    }
    assert.deepEqual(stage.errors, [])
  }
})

test('a disk that says it has flushed and has not: cache error detected!', async () => {
  const stage = await Stage.open(5)
  stage.start(lying(stage.disk))
  await stage.clock.advance(1000)
  const flushed = stage.known()
  stage.cutPower(0)
  await stage.clock.advance(100)
  stage.start()
  await stage.clock.advance(3000)
  assert.equal(stage.code, 'CACHE_ERROR')
  assert.match(String(stage.outcome), /cache error detected! thread/)
  assert.equal(stage.errors[0]?.known, flushed[stage.errors[0]?.thread ?? 0])
  // known now: the same loss is not told again
  const count = stage.errors.length
  stage.start()
  await stage.clock.advance(3000)
  assert.deepEqual([stage.outcome, stage.errors.length], [null, count])
})

test('one block lost in front of others that arrived is a loss, too', async () => {
  const stage = await Stage.open(6)
  const file = await stage.clock.settled(CounterFile.open(stage.disk, 0))
  for (let counter = 1; counter <= 40; counter++) {
    stage.disk.faults.loseWrites = counter === 33 ? 1 : 0
    await stage.clock.settled(file.write(counter))
  }
  assert.deepEqual(await stage.clock.settled(file.validate()), { lastValid: 32, highest: 40 })
})

test('the ring: what is overwritten is not missed, and the place under way may hold anything', async () => {
  const stage = await Stage.open(7)
  stage.disk.faults.delayMs = 0
  const file = await stage.clock.settled(CounterFile.open(stage.disk, 0))
  const last = 2 * BLOCKS_PER_FILE + 17
  for (let counter = 1; counter <= last; counter++) await file.write(counter)
  assert.deepEqual(await file.validate(), { lastValid: last, highest: last })
  const place = ((last + 1) % BLOCKS_PER_FILE) * 4096
  stage.disk.flipBit('cairn-hwflush-0', place + 99, 2)
  assert.deepEqual(await file.validate(), { lastValid: last, highest: last })
  // the one after that was flushed long ago and is still there
  stage.disk.flipBit('cairn-hwflush-0', place + 4096 + 99, 2)
  const lost = last - BLOCKS_PER_FILE + 2
  assert.deepEqual(await file.validate(), { lastValid: lost - 1, highest: last })
})

test('files that are gone are a loss, unless it is said that this is another disk', async () => {
  const stage = await Stage.open(8)
  const client = stage.start()
  await stage.clock.advance(500)
  client.stop()
  await stage.clock.advance(100)
  assert.equal(stage.outcome, 'ended')
  const other = new SimulatedDisk({ seed: 9 })
  stage.start(other)
  await stage.clock.advance(3000)
  assert.equal(stage.code, 'CACHE_ERROR')
  const again = stage.start(stage.disk, true)
  await stage.clock.advance(3000)
  assert.deepEqual([stage.outcome, stage.validations[0]], [null, { lastValid: 0, highest: 0 }])
  again.stop()
})

test('without its server the client waits, goes on when it is back, and gives up after a minute', async () => {
  const stage = await Stage.open(10)
  const client = stage.start()
  await stage.clock.advance(500)
  stage.network.partition('client 1', 'server')
  stage.network.cut('client 1', 'server')
  await stage.clock.advance(2000)
  const waiting = client.writtenCount
  await stage.clock.advance(10_000)
  assert.equal(client.writtenCount, waiting)
  stage.network.heal('client 1', 'server')
  await stage.clock.advance(10_000)
  assert.ok(client.writtenCount > waiting)
  assert.deepEqual([stage.outcome, stage.errors], [null, []])
  stage.network.partition('client 1', 'server')
  stage.network.cut('client 1', 'server')
  await stage.clock.advance(90_000)
  assert.equal(stage.code, 'UNREACHABLE')
})

test('what does not speak as it should is cut off, and the server goes on', async () => {
  const stage = await Stage.open(11)
  for (const text of [
    'GET / HTTP/1.1\n',
    'cairn-hwflush 9 1 x\n',
    'start 0 1\n',
    `${'x'.repeat(10_000)}`,
    'done 999 1\n',
  ]) {
    const connection = stage.network.host('stranger').connect(address, 1000)
    let closed = false
    connection.start({
      onOpen: () => connection.write([Buffer.from(text)]),
      onData: () => {},
      onDrain: () => {},
      onClose: () => {
        closed = true
      },
    })
    await stage.clock.advance(2000)
    assert.ok(closed, text.slice(0, 20))
  }
  stage.start()
  await stage.clock.advance(500)
  assert.equal(stage.known().length, THREADS)
})
