/** Proves the four kinds of hooks, sync and async: order, faults, deadlines, disposal. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { asyncHook, Hook, syncHook, TAPS_PER_HOOK_MAX } from './hook.ts'
import type { Denial, TapOwner } from './hook.ts'
import { HookRegistry } from './hook-registry.ts'
import { ManualClock } from './test-support.ts'

interface TestOwner extends TapOwner {
  rank: number
  holding: boolean
  muted: boolean
  readonly faults: string[]
}

function owner(plugin: string, rank = 0): TestOwner {
  const faults: string[] = []
  const reportFault = (hook: string, error: unknown): void => {
    faults.push(`${plugin} ${hook}: ${(error as Error).message}`)
  }
  return { plugin, rank, holding: false, muted: false, held: new Set(), faults, reportFault }
}

const traits = { since: '1', stability: 'stable', onFault: 'ignore', description: 'x' } as const
const boom = (): never => {
  throw new Error('boom')
}

const notifySync = syncHook.notify<[text: string]>({
  ...traits,
  name: 't.notify',
  parameters: ['text: string'],
})
const vetoSync = syncHook.veto<[size: number]>({ ...traits, name: 't.veto', parameters: ['size: number'] })
const vetoClosed = syncHook.veto<[size: number]>({
  ...traits,
  name: 't.vetoClosed',
  onFault: 'fail-closed',
  parameters: ['size: number'],
})
const transformSync = syncHook.transform<[value: string, suffix: string]>({
  ...traits,
  name: 't.transform',
  parameters: ['value: string', 'suffix: string'],
})
const transformClosed = syncHook.transform<[value: string]>({
  ...traits,
  name: 't.transformClosed',
  onFault: 'fail-closed',
  parameters: ['value: string'],
})
const collectSync = syncHook.collect<[key: string], number>({
  ...traits,
  name: 't.collect',
  parameters: ['key: string'],
})
const notifyAsync = asyncHook.notify<[text: string]>({
  ...traits,
  name: 't.notifyAsync',
  parameters: ['text: string'],
})
const vetoAsync = asyncHook.veto<[size: number]>({
  ...traits,
  name: 't.vetoAsync',
  parameters: ['size: number'],
})
const transformAsync = asyncHook.transform<[value: number]>({
  ...traits,
  name: 't.transformAsync',
  parameters: ['value: number'],
})
const collectAsync = asyncHook.collect<[], string>({ ...traits, name: 't.collectAsync', parameters: [] })

const clock = new ManualClock()

test('notify tells everybody; an error in one tap is reported with plugin and hook and the next still runs', () => {
  const hook = new Hook(notifySync, clock)
  const [a, b] = [owner('a'), owner('b')]
  const heard: string[] = []
  hook.tap(a, boom)
  hook.tap(b, (text) => void heard.push(text))
  hook.call('hello')
  assert.deepEqual(heard, ['hello'])
  assert.deepEqual(a.faults, ['a t.notify: boom'])
  assert.deepEqual(b.faults, [])
})

test('a rejected promise in a synchronous notify tap is a fault, not an unhandled rejection', async () => {
  const hook = new Hook(notifySync, clock)
  const a = owner('a')
  hook.tap(a, async () => boom())
  hook.call('x')
  await Promise.resolve()
  await Promise.resolve()
  assert.deepEqual(a.faults, ['a t.notify: boom'])
})

test('veto: the first denial wins and names its plugin; nobody objects is undefined', () => {
  const hook = new Hook(vetoSync, clock)
  assert.equal(hook.call(1), undefined)
  hook.tap(owner('limit'), (size) => (size > 10 ? { reason: 'too big', code: 'LIMIT' } : undefined))
  let asked = 0
  hook.tap(owner('later', 1), () => void asked++)
  assert.equal(hook.call(1), undefined)
  assert.deepEqual(hook.call(11), { plugin: 'limit', reason: 'too big', code: 'LIMIT' })
  assert.equal(asked, 1)
})

test('a veto tap that throws allows with "ignore" and denies with "fail-closed"', () => {
  const open = new Hook(vetoSync, clock)
  open.tap(owner('a'), boom)
  assert.equal(open.call(1), undefined)
  const closed = new Hook(vetoClosed, clock)
  const a = owner('a')
  closed.tap(a, boom)
  assert.deepEqual(closed.call(1), {
    plugin: 'a',
    code: 'HOOK_FAULT',
    reason: 'plugin a could not decide t.vetoClosed: boom',
  })
  assert.equal(a.faults.length, 1)
})

test('a veto that answers with something else than a denial is a fault', () => {
  const hook = new Hook(vetoClosed, clock)
  const a = owner('a')
  hook.tap(a, () => true as unknown as Denial)
  assert.match(hook.call(1)?.reason ?? '', /not \{ reason \}/)
  assert.equal(a.faults.length, 1)
})

test('transform hands the value on; undefined and errors leave it as it is', () => {
  const hook = new Hook(transformSync, clock)
  assert.equal(hook.call('x', '!'), 'x')
  hook.tap(owner('a'), (value, suffix) => value + suffix)
  hook.tap(owner('b', 1), boom)
  hook.tap(owner('c', 2), () => undefined)
  hook.tap(owner('d', 3), (value) => value.toUpperCase())
  assert.equal(hook.call('x', 'y'), 'XY')
})

test('a fail-closed transform that throws ends the call: a store must not open without its journal', () => {
  const hook = new Hook(transformClosed, clock)
  hook.tap(owner('journal'), boom)
  assert.throws(() => hook.call('store'), {
    code: 'HOOK_FAULT',
    message: /plugin journal failed in t\.transformClosed: boom/,
  })
})

test('collect gathers values with their plugins in tap order; undefined and errors add nothing', () => {
  const hook = new Hook(collectSync, clock)
  assert.deepEqual(hook.call('k'), [])
  hook.tap(owner('late', 9), () => 2)
  hook.tap(owner('early', 1), (key) => key.length)
  hook.tap(owner('none', 2), () => undefined)
  hook.tap(owner('bad', 3), boom)
  hook.tap(owner('first', 5), () => 0, { stage: -1 })
  assert.deepEqual(hook.call('k'), [
    { plugin: 'first', value: 0 },
    { plugin: 'early', value: 1 },
    { plugin: 'late', value: 2 },
  ])
})

test('a promise from a synchronous collect tap is a fault', () => {
  const hook = new Hook(collectSync, clock)
  const a = owner('a')
  hook.tap(a, (async () => 1) as unknown as () => number)
  assert.deepEqual(hook.call('k'), [])
  assert.match(a.faults[0] ?? '', /returned a promise/)
})

test('the four asynchronous kinds', async () => {
  const heard: string[] = []
  const notify = new Hook(notifyAsync, clock)
  notify.tap(owner('a'), async () => boom())
  notify.tap(owner('b'), async (text) => void heard.push(text))
  await notify.call('hello')
  assert.deepEqual(heard, ['hello'])

  const veto = new Hook(vetoAsync, clock)
  veto.tap(owner('a'), async () => undefined)
  veto.tap(owner('b'), async (size) => (size > 1 ? { reason: 'no' } : undefined))
  assert.equal(await veto.call(1), undefined)
  assert.deepEqual(await veto.call(2), { plugin: 'b', reason: 'no' })

  const transform = new Hook(transformAsync, clock)
  transform.tap(owner('a'), async (value) => value + 1)
  transform.tap(owner('b'), (value) => value * 10)
  transform.tap(owner('c'), async () => boom())
  assert.equal(await transform.call(1), 20)

  const collect = new Hook(collectAsync, clock)
  let release = (): void => {}
  collect.tap(owner('slow'), () => new Promise((resolve) => (release = () => resolve('slow'))))
  collect.tap(owner('quick', 1), () => 'quick')
  const collected = collect.call()
  release()
  assert.deepEqual(await collected, [
    { plugin: 'slow', value: 'slow' },
    { plugin: 'quick', value: 'quick' },
  ])
})

test('an asynchronous tap that does not answer is a fault at its deadline, and the others count', async () => {
  const hook = new Hook(collectAsync, clock)
  const hung = owner('hung')
  hook.tap(hung, () => new Promise(() => {}))
  hook.tap(owner('quick'), () => 'quick')
  const collected = hook.call()
  clock.advance(10_000)
  assert.deepEqual(await collected, [{ plugin: 'quick', value: 'quick' }])
  assert.match(hung.faults[0] ?? '', /no answer within 10000 ms/)
  assert.equal(clock.timerCount, 0)
})

test('a disposed tap is gone at once, also when disposed by a tap that runs before it, and twice is no harm', () => {
  const hook = new Hook(notifySync, clock)
  const heard: string[] = []
  hook.tap(owner('a'), () => disposeB())
  const disposeB = hook.tap(owner('b', 1), (text) => void heard.push(text))
  hook.call('x')
  disposeB()
  assert.deepEqual(heard, [])
  assert.equal(hook.tapCount, 1)
})

test('1000 times tapped and disposed leaves no tap behind', () => {
  const hook = new Hook(notifySync, clock)
  let count = 0
  const a = owner('a')
  for (let reload = 0; reload < 1000; reload++) {
    const dispose = hook.tap(a, () => void count++)
    hook.call('x')
    dispose()
  }
  assert.equal(count, 1000)
  assert.equal(hook.tapCount, 0)
  hook.tap(a, () => void count++)
  hook.call('x')
  assert.equal(count, 1001)
})

test('taps per hook are bounded', () => {
  const hook = new Hook(notifySync, clock)
  const a = owner('a')
  for (let index = 0; index < TAPS_PER_HOOK_MAX; index++) hook.tap(a, () => {})
  assert.throws(() => hook.tap(a, () => {}), { code: 'PLUGIN_LIMIT' })
})

test('a plugin that is down but wanted keeps denying in fail-closed hooks until it is released', () => {
  const closed = new Hook(vetoClosed, clock)
  const open = new Hook(notifySync, clock)
  const license = owner('license')
  const disposers = [closed.tap(license, () => undefined), open.tap(license, () => {})]
  assert.equal(closed.call(1), undefined)
  license.holding = true
  for (const dispose of disposers) dispose()
  assert.match(closed.call(1)?.reason ?? '', /plugin license is not running, and nothing may pass without it/)
  assert.equal(open.tapCount, 0)
  assert.deepEqual(license.faults, [])
  for (const release of license.held) release()
  assert.equal(closed.call(1), undefined)
  assert.equal(closed.tapCount, 0)
})

test('a muted plugin is no longer called, and its fail-closed taps deny', () => {
  const closed = new Hook(vetoClosed, clock)
  const open = new Hook(notifySync, clock)
  const a = owner('a')
  let calls = 0
  open.tap(a, () => void calls++)
  closed.tap(a, () => void calls++)
  a.muted = true
  open.call('x')
  assert.match(closed.call(1)?.reason ?? '', /is not running/)
  assert.equal(calls, 0)
})

test('a registry refuses a definition that is filed under another name', () => {
  assert.throws(() => new HookRegistry({ t: { wrong: notifySync } }, clock), /filed as t\.wrong/)
})

test('a registry gives plugins the tree with tap only', () => {
  const registry = new HookRegistry({ t: { notify: notifySync, collect: collectSync } }, clock)
  const owned: string[] = []
  const taps = registry.tapsFor(owner('a'), (dispose, name) => {
    owned.push(name)
    return dispose
  })
  const dispose = taps.t.collect.tap((key) => key.length)
  assert.deepEqual(Object.keys(taps.t.notify), ['tap'])
  assert.deepEqual(registry.hooks.t.collect.call('four'), [{ plugin: 'a', value: 4 }])
  dispose()
  assert.equal(registry.tapCount, 0)
  assert.deepEqual(owned, ['tap of t.collect'])
})
