/** A server with very many chunks changes its state: every chunk is looked at, a few in each step. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ChunkTable } from '../../chunks/chunk-table.ts'
import { ServerScans } from './server-scans.ts'

const CHUNK_COUNT = 100_000

function tableOf(count: number): ChunkTable {
  const table = new ChunkTable()
  for (let chunk = 1; chunk <= count; chunk++) {
    const servers = chunk % 10 === 0 ? [2, 3, 4, 5, 1] : chunk % 10 === 1 ? [2] : [1, 2]
    table.put({
      chunk,
      inode: 5,
      index: chunk,
      version: 1,
      members: servers.map((server) => ({ server, role: 'in-sync', since: 1, attempt: 0 })),
      writable: true,
      pending: null,
      intentLease: chunk <= 1000 ? 7 : 0,
      dirtyDead: false,
      former: [],
    })
  }
  return table
}

function stage(chunks: ChunkTable) {
  const deferred: (() => void)[] = []
  const looked: { chunk: number; urgency: string }[] = []
  const stage_ = { isFull: false, most: 0, deferred, looked }
  const scans = new ServerScans({
    chunks,
    leases: () => [7],
    defer: (callback) => void deferred.push(callback),
    isFull: () => stage_.isFull,
    look: (chunk, urgency) => void looked.push({ chunk, urgency }),
  })
  const step = (): boolean => {
    const before = looked.length
    deferred.shift()?.()
    stage_.most = Math.max(stage_.most, looked.length - before)
    return deferred.length > 0
  }
  return { ...stage_, scans, step, state: stage_ }
}

test('every chunk of the server, in short steps, writers first', () => {
  const { scans, step, state, looked } = stage(tableOf(CHUNK_COUNT))
  scans.start(1)
  assert.equal(looked.length, 0, 'nothing in the step of the change itself')
  while (step());
  assert.ok(state.most <= 8192, `${state.most} chunks in one step`)
  const later = new Set(looked.filter(({ urgency }) => urgency === 'later').map(({ chunk }) => chunk))
  assert.equal(later.size, (CHUNK_COUNT / 10) * 9)
  assert.ok(!later.has(1) && later.has(10) && later.has(CHUNK_COUNT))
  const urgentCount = looked.filter(({ urgency }) => urgency === 'urgent').length
  assert.equal(urgentCount, 900)
  assert.ok(looked.slice(0, urgentCount).every(({ urgency }) => urgency === 'urgent'))
  assert.equal(scans.isRunning, false)
})

test('it waits while recovery has enough to do, and starts over when the server changes again', () => {
  const { scans, step, state, looked } = stage(tableOf(20_000))
  scans.start(1)
  for (let i = 0; i < 2; i++) step()
  state.isFull = true
  while (step());
  const before = looked.length
  scans.resume()
  assert.equal(state.deferred.length, 0)
  assert.equal(looked.length, before)
  assert.equal(scans.isRunning, true)
  state.isFull = false
  scans.start(1)
  looked.length = 0
  while (step());
  assert.equal(looked.filter(({ urgency }) => urgency === 'later').length, 18_000)
})
