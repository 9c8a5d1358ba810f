/** Proves that what a plugin owns is undone in order, once, and within limits. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DISPOSERS_PER_SCOPE_MAX, newKernelContainer, registerValues, Scope } from './scope.ts'
import { ManualClock } from './test-support.ts'

function scope() {
  const clock = new ManualClock()
  const reports: string[] = []
  const made = new Scope(clock, (name, error) => reports.push(`${name}: ${(error as Error).message}`))
  return { clock, reports, scope: made }
}

test('disposers run one after the other, last in first out, also asynchronous ones', async () => {
  const { scope: made, clock } = scope()
  const log: string[] = []
  made.own(() => void log.push('a'), 'a')
  made.own(async () => {
    log.push('b begins')
    await Promise.resolve()
    await Promise.resolve()
    log.push('b ends')
  }, 'b')
  made.ownSync(() => log.push('c'), 'c')
  await Promise.all([made.close(), made.close()])
  assert.deepEqual(log, ['c', 'b begins', 'b ends', 'a'])
  assert.equal(clock.timerCount, 0)
})

test('disposed early is forgotten, and happens once', async () => {
  const { scope: made } = scope()
  let count = 0
  const dispose = made.own(() => void count++, 'x')
  await dispose()
  await dispose()
  await made.close()
  assert.equal(count, 1)
  assert.equal(made.size, 0)
})

test('a scope has a limit, and takes nothing once it closes', async () => {
  const { scope: made } = scope()
  for (let index = 0; index < DISPOSERS_PER_SCOPE_MAX; index++) made.ownSync(() => {}, 'x')
  assert.throws(() => made.ownSync(() => {}, 'x'), { code: 'PLUGIN_LIMIT' })
  const closing = made.close()
  assert.throws(() => made.own(() => {}, 'late'), { code: 'PLUGIN_STOPPED', message: /late/ })
  await closing
})

test('a child container sees the services of its parent, and its own stay its own', () => {
  const parent = newKernelContainer({ clock: 'the clock' })
  const child = parent.createScope()
  registerValues(child, { bell: 'ding' })
  assert.equal(child.resolve('clock'), 'the clock')
  assert.equal(child.resolve('bell'), 'ding')
  assert.equal(parent.hasRegistration('bell'), false)
})
