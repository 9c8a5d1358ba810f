/** Proves that the map and the set in parts answer as the built-in ones do, also while they are walked. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ShardedMap, ShardedSet } from './sharded.ts'

const ids = fc.array(fc.oneof(fc.nat({ max: 20 }), fc.integer({ min: 2 ** 40, max: 2 ** 40 + 5 })), {
  maxLength: 80,
})

test('a map and a set in parts answer as whole ones do', () => {
  fc.assert(
    fc.property(ids, (steps) => {
      const map = new ShardedMap<number>()
      const set = new ShardedSet()
      const model = new Map<number, number>()
      // Each step turns one id on or off.
      for (const [position, id] of steps.entries()) {
        const wasThere = model.delete(id)
        if (wasThere) assert.ok(map.delete(id) && set.delete(id))
        else {
          model.set(id, position)
          map.set(id, position)
          map.set(id, position)
          set.add(id)
          set.add(id)
        }
        assert.equal(map.delete(-1) || set.delete(-1), false)
        assert.deepEqual(
          [map.size, set.size, map.get(id), set.has(id)],
          [model.size, model.size, model.get(id), !wasThere],
        )
      }
      const expected = new Set(model.keys())
      assert.deepEqual(new Set(map.keys()), expected)
      assert.deepEqual(new Set(set), expected)
    }),
  )
})

test('what is deleted during a walk ends nothing', () => {
  const set = new ShardedSet()
  for (let id = 0; id < 2_000; id++) set.add(id)
  let count = 0
  for (const id of set) {
    set.delete(id)
    count += 1
  }
  assert.deepEqual([count, set.size], [2_000, 0])
})
