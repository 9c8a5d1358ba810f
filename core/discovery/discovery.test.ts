/** Proves what the list of metadata servers promises, against plugins that lie, fail and fall silent. */
import assert from 'node:assert/strict'
import test from 'node:test'
import fc from 'fast-check'
import { CairnError } from '../base/errors.ts'
import type { ResolveReport } from '../kernel/hooks.ts'
import { silentLogger } from '../platform/logger.ts'
import { type Address, formatAddress } from '../platform/network.ts'
import { SeededRandom } from '../testing/simulation/seeded-random.ts'
import { SimulatedClock } from '../testing/simulation/simulated-clock.ts'
import { Discovery } from './discovery.ts'
import { SERVERS_MAX } from './metadata-servers.ts'

function scene(configured: readonly string[] = []) {
  const state = {
    clock: new SimulatedClock(),
    configured: () => configured.map(addressOf),
    answer: (): Promise<readonly ResolveReport[]> => Promise.resolve([]),
    askCount: 0,
  }
  const discovery = new Discovery({
    cluster: 'demo',
    configured: () => state.configured(),
    resolve: async (cluster) => {
      assert.equal(cluster, 'demo')
      state.askCount += 1
      return [{ plugin: 'p', value: await state.answer() }]
    },
    clock: state.clock,
    random: new SeededRandom(1),
    logger: silentLogger,
  })
  const list = (): string[] => discovery.list().map(formatAddress)
  /** As long after the last question as it takes to be heard again. */
  const ask = async (): Promise<string[]> => {
    await state.clock.advance(31_000)
    await discovery.ask()
    return list()
  }
  return { state, discovery, list, ask }
}

function addressOf(text: string): Address {
  const at = text.lastIndexOf(':')
  return { host: text.slice(0, at), port: Number(text.slice(at + 1)) }
}

function found(method: string, ...servers: readonly string[]): ResolveReport {
  return { method, servers: servers.map((text, priority) => ({ ...addressOf(text), priority, weight: 0 })) }
}

test('what an administrator gave comes first, then each method in its own order, without doubles', async () => {
  const { state, list, ask } = scene(['a:1', 'b:1'])
  assert.deepEqual(list(), ['a:1', 'b:1'])
  state.answer = () => Promise.resolve([found('dns', 'c:1', 'A:1', 'd:2'), found('zeroconf', 'd:2', 'e:1')])
  assert.deepEqual(await ask(), ['a:1', 'b:1', 'c:1', 'd:2', 'e:1'])
})

test('a method that fails, or finds nothing any more, keeps its last good answer', async () => {
  const { state, ask, discovery } = scene()
  state.answer = () => Promise.resolve([found('dns', 'a:1'), found('zeroconf', 'b:1')])
  assert.deepEqual(await ask(), ['a:1', 'b:1'])
  state.answer = () => Promise.resolve([{ method: 'dns', problem: 'no server answers', servers: [] }])
  assert.deepEqual(await ask(), ['a:1', 'b:1'])
  assert.deepEqual(discovery.problems(), ['dns: no server answers'])
  state.answer = () => Promise.resolve([found('dns'), found('zeroconf', 'c:1')])
  assert.deepEqual(await ask(), ['a:1', 'c:1'])
  assert.deepEqual(discovery.problems(), [])
})

test('plugins that cannot be asked do not hinder what is configured, and are a problem', async () => {
  const { state, ask, discovery } = scene(['a:1'])
  state.answer = () => Promise.reject(new Error('cairn.json is broken'))
  assert.deepEqual(await ask(), ['a:1'])
  assert.deepEqual(discovery.problems(), ['cairn.json is broken'])
})

test('bs.list is read anew; one that became unreadable is told at once at first, later a problem', async () => {
  const { state, ask, discovery } = scene(['a:1'])
  state.configured = () => [addressOf('b:1')]
  assert.deepEqual(await ask(), ['b:1'])
  state.configured = () => {
    throw new CairnError('BAD_CONFIG', 'bs.list, line 2')
  }
  assert.deepEqual(await ask(), [])
  assert.deepEqual(discovery.problems(), ['bs.list, line 2'])
  assert.throws(() => new Discovery({ configured: state.configured } as never), { code: 'BAD_CONFIG' })
})

test('questions at the same time are one, and repeated ones become rarer', async () => {
  const { state, discovery } = scene()
  const [first, second] = [discovery.ask(), discovery.ask()]
  assert.equal(first, second)
  await first
  assert.equal(state.askCount, 1)
  for (let seconds = 0; seconds < 120; seconds++) {
    await state.clock.advance(1000)
    await discovery.ask()
  }
  // 2, 4, 8, 16, 30, 30 … seconds apart
  assert.ok(state.askCount >= 5 && state.askCount <= 8, `${state.askCount}`)
})

test('whatever a plugin answers, the list is bounded and holds addresses only', async () => {
  const wild = fc.array(
    fc.record({
      method: fc.string(),
      servers: fc.array(
        fc.record({
          host: fc.oneof(fc.string({ maxLength: 300 }), fc.ipV4(), fc.ipV6(), fc.constant(null)),
          port: fc.oneof(fc.integer(), fc.double(), fc.integer({ min: 1, max: 65_535 })),
          priority: fc.oneof(fc.integer({ min: -1, max: 65_536 }), fc.constant(0)),
          weight: fc.oneof(fc.integer({ min: 0, max: 65_535 }), fc.constant(Number.NaN)),
        }),
        { maxLength: 200 },
      ),
    }),
    { maxLength: 50 },
  )
  await fc.assert(
    fc.asyncProperty(wild, async (reports) => {
      const { state, discovery, ask } = scene(['a:1'])
      state.answer = () => Promise.resolve(reports as unknown as ResolveReport[])
      await ask()
      const list = discovery.list()
      assert.ok(list.length >= 1 && list.length <= SERVERS_MAX)
      assert.deepEqual(list[0], addressOf('a:1'))
      for (const { host, port } of list) {
        assert.match(host, /^[A-Za-z0-9_.:-]{1,253}$/)
        assert.ok(Number.isInteger(port) && port >= 1 && port <= 65_534)
      }
    }),
    { numRuns: 60 },
  )
})
