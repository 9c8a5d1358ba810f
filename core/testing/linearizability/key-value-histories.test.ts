// Proves that the key-value store is linearizable as its clients see it: histories recorded on the simulated
// cluster under crashes, power cuts, lost connections and expiring sessions have an order that explains every
// answer. And that this would show: planted bugs are found in the same histories.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { KeyValue, KeyValueEntry } from '../../client/api.ts'
import { type HistoryOptions, recordHistory } from './key-value-histories.ts'
import { checkLinearizability, describeVerdict } from './linearizability.ts'
import { mapModel } from './linearizability-models.ts'
import type { SeededRandom } from '../simulation/seeded-random.ts'
import { simulatedRoles } from '../simulation/simulated-roles.ts'

const durationMs = 45_000
const seeds = [1, 2, 3, 4, 5, 6]

test('recorded histories are linearizable', async () => {
  const counts = { operations: 0, lost: 0, refused: 0, faults: 0 }
  for (const seed of seeds) {
    const { history, faultCount } = await recordHistory({ seed, durationMs })
    const verdict = checkLinearizability(history, mapModel)
    assert.equal(verdict.kind, 'linearizable', `seed ${seed}: ${describeVerdict(verdict)}`)
    const operations = history.filter(({ input }) => input.kind !== 'end')
    counts.operations += operations.length
    counts.lost += operations.filter(({ returnedAt }) => returnedAt === null).length
    counts.refused += operations.filter(({ output }) => output?.failed !== undefined).length
    counts.faults += faultCount
  }
  // It must not pass on nothing.
  assert.ok(counts.operations > 2000 && counts.lost >= 10, JSON.stringify(counts))
  assert.ok(counts.refused > 100 && counts.faults > 100, JSON.stringify(counts))
})

test('the same seed gives the same history', async () => {
  const one = await recordHistory({ seed: 3, durationMs: 10_000 })
  const two = await recordHistory({ seed: 3, durationMs: 10_000 })
  assert.deepEqual(one, two)
})

async function isFound(options: Omit<HistoryOptions, 'seed' | 'durationMs'>): Promise<boolean> {
  for (const seed of seeds) {
    const { history } = await recordHistory({ ...options, seed, durationMs })
    if (checkLinearizability(history, mapModel).kind === 'violation') return true
  }
  return false
}

/** Now and then the answer before is given again. */
function forgetful(keyValue: KeyValue, random: SeededRandom): KeyValue {
  const earlier = new Map<string, KeyValueEntry | null>()
  return new Proxy(keyValue, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name)
      if (name !== 'get') return typeof member === 'function' ? member.bind(target) : member
      return async (key: string) => {
        const old = earlier.get(key)
        const now = await target.get(key)
        earlier.set(key, now)
        return old !== undefined && random.below(4) === 0 ? old : now
      }
    },
  })
}

test('a planted bug is found: stale reads', async () => {
  assert.ok(await isFound({ decorate: forgetful }))
})

test('a planted bug is found: repeated commands are applied again', async () => {
  const metadataServer: typeof simulatedRoles.metadataServer = async (parts) => {
    const role = await simulatedRoles.metadataServer(parts)
    role.server.state.replies.earlier = () => undefined
    return role
  }
  assert.ok(await isFound({ roles: { metadataServer } }))
})

test('a planted bug is found: the keys of a session outlive it', async () => {
  const metadataServer: typeof simulatedRoles.metadataServer = async (parts) => {
    const role = await simulatedRoles.metadataServer(parts)
    role.server.state.keyValue.endSession = () => undefined
    return role
  }
  assert.ok(await isFound({ roles: { metadataServer } }))
})
