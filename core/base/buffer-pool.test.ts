/** Proves that the pool hands out what was asked for, reuses it within its bound, and finds double releases. */
import { equal, notEqual, ok, throws } from 'node:assert/strict'
import { test } from 'node:test'
import { BufferPool } from './buffer-pool.ts'

test('buffers have the exact length and are reused by class', () => {
  const pool = new BufferPool()
  for (const size of [0, 1, 4095, 4096, 4097, 65_536, 65_537, 1 << 20, 2 << 20, (2 << 20) + 1])
    equal(pool.acquire(size).length, size)
  const first = pool.acquire(5000)
  pool.release(first)
  equal(pool.retainedBytes, 8192)
  const second = pool.acquire(8192)
  equal(second.buffer, first.buffer)
  equal(second.length, 8192)
  equal(pool.retainedBytes, 0)
  notEqual(pool.acquire(8192).buffer, second.buffer)
})

test('what is kept is bounded; foreign buffers are ignored', () => {
  const pool = new BufferPool({ retainedBytesMax: 10_000 })
  const buffers = Array.from({ length: 5 }, () => pool.acquire(4096))
  for (const buffer of buffers) pool.release(buffer)
  equal(pool.retainedBytes, 8192)
  pool.release(Buffer.alloc(4096))
  pool.release(Buffer.from('from the shared slab of Node'))
  equal(pool.retainedBytes, 8192)
})

test('poison: released bytes are overwritten and a second release is a bug', () => {
  const pool = new BufferPool({ poison: true })
  const buffer = pool.acquire(100).fill(1)
  pool.release(buffer)
  ok(buffer.every((byte) => byte === 0xdb))
  throws(() => pool.release(buffer), { name: 'AssertionError' })
})
