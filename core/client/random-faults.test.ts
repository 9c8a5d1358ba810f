/**
 * Property: under random reads, writes, flushes, truncations and failures of servers, connections and the
 * master, a file is the byte array of a dumb model, and afterwards all replicas are equal. The seed is in
 * the test's name; it replays alone.
 */
import assert from 'node:assert/strict'
import test from 'node:test'
import { Prng } from '../base/prng.ts'
import { CHUNK_SIZE_BYTES } from '../base/units.ts'
import type { CairnError } from '../base/errors.ts'
import type { File } from './api.ts'
import { FakeCluster, flushOf, readOf } from './testing/fake-cluster.ts'

const SERVERS = 4
const STEPS = 60
/** Two windows, one of them over a chunk boundary. */
const WINDOWS = [
  { at: 0, length: 48 * 1024 },
  { at: CHUNK_SIZE_BYTES - 16 * 1024, length: 32 * 1024 },
] as const
const SIZE_BYTES = CHUNK_SIZE_BYTES + 16 * 1024

interface Write {
  readonly at: number
  readonly data: Buffer
}

class Run {
  readonly prng: Prng
  readonly cluster: FakeCluster
  /** One model for each window. */
  readonly model = WINDOWS.map(({ length }) => Buffer.alloc(length))
  #faulty = 0
  #cleanup: (() => void) | null = null
  /** After the loss of a member the next loss waits for a flush: no two at once. */
  lostMember = false
  operations = 0
  faults = 0

  constructor(seed: number) {
    this.prng = new Prng(seed)
    this.cluster = new FakeCluster(SERVERS, seed)
  }

  range(): { window: number; at: number; length: number } {
    const window = this.prng.below(WINDOWS.length)
    const { length } = WINDOWS[window]!
    const at = this.prng.below(length)
    const wanted = this.prng.below(3) === 0 ? 4096 * (1 + this.prng.below(4)) : 1 + this.prng.below(9000)
    return { window, at, length: Math.min(length - at, wanted) }
  }

  /** Some operations at once; reads see what was issued before, and perhaps what came after. */
  async batch(file: File): Promise<void> {
    let left = 0
    const failures: CairnError[] = []
    const checks: (() => void)[] = []
    const writes: (Write & { window: number; order: number })[] = []
    const count = 1 + this.prng.below(6)
    for (let order = 0; order < count; order++) {
      const { window, at, length } = this.range()
      const base = WINDOWS[window]!.at
      left++
      this.operations++
      const kind = this.prng.below(10)
      if (kind < 5) {
        const data = Buffer.alloc(length, 0)
        for (let i = 0; i < length; i++) data[i] = this.prng.below(255) + 1
        const borrowed = Buffer.from(data)
        data.copy(this.model[window]!, at)
        writes.push({ window, at, data, order })
        file.write(base + at, borrowed, (error) => {
          if (error !== null) failures.push(error)
          borrowed.fill(0xee) // it is ours again
          left--
        })
      } else if (kind < 9) {
        const before = Buffer.from(this.model[window]!.subarray(at, at + length))
        file.read(base + at, length, (error, borrowed) => {
          left--
          if (error !== null) return void failures.push(error)
          const seen = Buffer.from(borrowed)
          checks.push(() =>
            checkRead(
              seen,
              before,
              at,
              order,
              writes.filter((write) => write.window === window),
            ),
          )
        })
      } else {
        file.flush((error) => {
          if (error !== null) failures.push(error)
          left--
        })
      }
      if (this.prng.below(4) === 0) await this.cluster.clock.advance(this.prng.below(4))
    }
    if (this.prng.below(2) === 0) this.maybeFault()
    await this.cluster.clock.until(() => left === 0, 120_000)
    assert.deepEqual(failures, [])
    for (const check of checks) check()
  }

  /** One fault at a time, ended before the next. */
  maybeFault(): void {
    if (this.#cleanup !== null) {
      if (this.prng.below(2) === 0) this.endFault()
      return
    }
    this.faults++
    const { cluster } = this
    const id = 1 + this.prng.below(SERVERS)
    this.#faulty = id
    switch (this.prng.below(7)) {
      case 0:
        cluster.kill(id)
        this.#endLater(() => cluster.revive(id))
        return
      case 1:
        cluster.master.server(id).isHanging = true
        this.#endLater(() => cluster.unhang(id))
        return
      case 2:
        cluster.ghostDelayMs = this.prng.below(200)
        cluster.cutServer(id)
        return
      case 3:
        cluster.cutMaster()
        return
      case 4: {
        cluster.masterDown = true
        cluster.cutMaster()
        cluster.clock.setTimer(this.prng.below(4000), () => (cluster.masterDown = false))
        return
      }
      case 5:
        if (!this.#othersHoldAll(id)) return
        // Its page cache is gone: the master takes it out before it serves again.
        cluster.crashHost(id)
        this.#leaveEverywhere(id)
        return
      default:
        cluster.latencyMs = 1 + this.prng.below(20)
    }
  }

  /** At the latest after a while: it may be the last in-sync member, for which everybody waits (rule G2). */
  #endLater(cleanup: () => void): void {
    this.#cleanup = cleanup
    this.cluster.clock.setTimer(20_000, () => {
      if (this.#cleanup === cleanup) this.endFault()
    })
  }

  #chunks() {
    return [...this.cluster.master.inodes.values()].flatMap((node) => [...node.chunks.values()])
  }

  /** Every chunk has another in-sync member: nothing is really lost. */
  #othersHoldAll(id: number): boolean {
    return this.#chunks().every((chunk) =>
      chunk.members.some((member) => member.server !== id && member.role === 'in-sync'),
    )
  }

  #leaveEverywhere(id: number): void {
    this.lostMember = true
    for (const chunk of this.#chunks()) {
      if (!chunk.members.some((member) => member.server === id)) continue
      const others = chunk.members.filter((member) => member.server !== id && member.role === 'in-sync')
      if (others.length > 0) {
        this.cluster.master.leave(chunk, id)
        // A restarted server serves nothing before it was told what it still has.
        const replica = this.cluster.master.server(id).replicas.get(chunk.id)
        if (replica !== undefined) replica.version = -1
      }
      // The last one stays; on its return it goes on under a new version (rule G2).
      else this.cluster.master.reconfigure(chunk, [...chunk.members])
    }
  }

  endFault(): void {
    this.#cleanup?.()
    this.#cleanup = null
    // A killed process is unclean: it leaves and joins again by comparison.
    this.#leaveEverywhere(this.#faulty)
  }

  /** Joins what is missing; ends joins that have run. */
  repair(): void {
    const { master } = this.cluster
    for (const chunk of this.#chunks()) {
      for (const member of [...chunk.members])
        if (member.role === 'joining' && this.prng.below(2) === 0) master.promote(chunk, member.server)
      const joining = chunk.members.some((member) => member.role === 'joining')
      const missing = this.cluster.servers.find(
        (server) =>
          !server.isDown && !server.isHanging && !chunk.members.some((member) => member.server === server.id),
      )
      // Only when nothing is in flight: the fake copies all pages in one step.
      if (!joining && missing !== undefined && chunk.members.length < 3) master.join(chunk, missing.id)
    }
  }
}

/** Each byte is what it was at issue, or what a later write of the batch put there. */
function checkRead(
  seen: Buffer,
  before: Buffer,
  at: number,
  order: number,
  writes: readonly (Write & { order: number })[],
): void {
  assert.equal(seen.length, before.length)
  for (let i = 0; i < seen.length; i++) {
    if (seen[i] === before[i]) continue
    const isLater = writes.some(
      (write) =>
        write.order > order &&
        write.at <= at + i &&
        at + i < write.at + write.data.length &&
        write.data[at + i - write.at] === seen[i],
    )
    assert.ok(isLater, `byte ${at + i}: read ${seen[i]}, written ${before[i]}`)
  }
}

async function runSeed(seed: number): Promise<void> {
  const run = new Run(seed)
  const { cluster } = run
  const client = await cluster.connect()
  const file = await cluster.create(client)
  await cluster.clock.wait(file.truncate(SIZE_BYTES))
  for (let step = 0; step < STEPS; step++) {
    await run.batch(file)
    if (run.lostMember) await cluster.clock.wait(flushOf(file), 120_000)
    run.lostMember = false
    run.repair()
    if (run.prng.below(8) === 0) await cluster.clock.advance(run.prng.below(8000))
  }
  run.endFault()
  cluster.masterDown = false
  await cluster.clock.wait(flushOf(file), 120_000)
  for (const [window, { at, length }] of WINDOWS.entries())
    assert.deepEqual(await cluster.clock.wait(readOf(file, at, length), 120_000), run.model[window])
  await cluster.clock.wait(client.close(), 120_000)
  // A power cut of everything: what was flushed is on every in-sync replica.
  for (const server of cluster.servers) server.crashHost()
  for (const [window, { at, length }] of WINDOWS.entries()) {
    const index = Math.floor(at / CHUNK_SIZE_BYTES)
    const chunk = cluster.master.inodes.get(file.inode)?.chunks.get(index)
    if (chunk === undefined) continue
    const begin = at - index * CHUNK_SIZE_BYTES
    const inChunk = Math.min(length, CHUNK_SIZE_BYTES - begin)
    for (const member of chunk.members.filter(({ role }) => role === 'in-sync'))
      assert.deepEqual(
        cluster.master.server(member.server).contents(chunk.id, begin, begin + inChunk),
        run.model[window]!.subarray(0, inChunk),
      )
  }
  assert.equal(client.counters()['inFlightBytes'], 0)
  assert.ok(run.operations >= STEPS && run.faults > 3)
}

for (let seed = 1; seed <= 30; seed++)
  test(`a file is a byte array under faults, seed ${seed}`, () => runSeed(seed))
