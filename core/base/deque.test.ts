/** Proves that the queue behaves like an array that is pushed and shifted, and that the generator is a good one. */
import { deepEqual, equal, notDeepEqual, ok } from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Deque } from './deque.ts'
import { Prng } from './prng.ts'

test('same as an array, up to its bound', () => {
  fc.assert(
    fc.property(fc.array(fc.option(fc.integer()), { maxLength: 300 }), (steps) => {
      const queue = new Deque<number>(50)
      const model: number[] = []
      for (const step of steps) {
        if (step === null) equal(queue.shift(), model.shift())
        else {
          equal(queue.push(step), model.length < 50)
          if (model.length < 50) model.push(step)
        }
        equal(queue.count, model.length)
        equal(queue.peek(), model[0])
      }
      queue.clear()
      equal(queue.shift(), undefined)
    }),
  )
})

test('the generator repeats by seed, differs between seeds and forks, and is even', () => {
  const series = (random: Prng): number[] => Array.from({ length: 10 }, () => random.uint32())
  deepEqual(series(new Prng(7)), series(new Prng(7)))
  notDeepEqual(series(new Prng(7)), series(new Prng(8)))
  const parent = new Prng(7)
  notDeepEqual(series(parent.fork()), series(parent.fork()))
  const counts = new Array<number>(10).fill(0)
  const random = new Prng(0)
  for (let i = 0; i < 100_000; i++) {
    const value = random.below(10)
    counts[value] = (counts[value] ?? Number.NaN) + 1
  }
  for (const count of counts) ok(Math.abs(count - 10_000) < 500, counts.join())
})
