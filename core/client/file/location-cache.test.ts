/** What is known of the places of chunks while answers are on their way (rule E4). */
import assert from 'node:assert/strict'
import test from 'node:test'
import type { ChunkLocation } from '../../wire/messages/common.ts'
import type { Engine } from '../session/engine.ts'
import { LocationCache } from './location-cache.ts'

type Answer = { locations: ChunkLocation[]; servers: []; generation: number }

function stage() {
  const answers: ((answer: Answer) => void)[] = []
  const engine = {
    clock: { defer: (callback: () => void) => callback() },
    session: { call: () => new Promise<Answer>((resolve) => answers.push(resolve)) },
    pool: { updateAddresses: () => undefined },
  }
  const cache = new LocationCache(engine as unknown as Engine, 1)
  const heard: (number | null | undefined)[] = []
  const locate = (index: number): void =>
    cache.locate(index, (_error, location) => heard.push(location?.chunk ?? null))
  const answer = async (...locations: ChunkLocation[]): Promise<void> => {
    answers.shift()?.({ locations, servers: [], generation: 7 })
    await new Promise((resolve) => setImmediate(resolve))
  }
  return { cache, heard, locate, answer }
}

const written: ChunkLocation = { index: 3, chunk: 30, version: 1, writable: true, members: [] }

test('a late answer does not make a hole of what was written meanwhile', async () => {
  const { cache, heard, locate, answer } = stage()
  locate(3)
  cache.set(written)
  assert.deepEqual(heard, [30], 'who asked before hears of it')
  await answer()
  assert.equal(cache.get(3)?.chunk, 30)
  assert.deepEqual(heard, [30])
})

test('a question that came later is not answered by an earlier answer', async () => {
  const { cache, heard, locate, answer } = stage()
  locate(3)
  cache.clear()
  locate(3)
  await answer()
  assert.deepEqual([heard, cache.get(3)], [[null], undefined])
  await answer(written)
  assert.deepEqual(heard, [null, 30])
  assert.equal(cache.get(3)?.chunk, 30)
})
