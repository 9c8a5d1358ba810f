/** Proves the life of plugins in one process: states, order, retries, faults, reloads. All in memory. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { CairnError } from '../base/errors.ts'
import { definePlugin } from './plugin.ts'
import type { Kernel } from './plugin.ts'
import { fixture, until } from './test-support.ts'
import type { Fixture, MemoryPlugin } from './test-support.ts'

const boom = (): never => {
  throw new Error('boom')
}

function plugin(apply: (kernel: Kernel) => void, cairn: Record<string, unknown> = {}): MemoryPlugin {
  return { cairn, definition: definePlugin({ apply }) }
}

async function boot(made: Fixture): Promise<Fixture> {
  await made.host.load()
  await made.host.start()
  return made
}

const stubborn = (): Promise<void> => new Promise(() => {})

test('a plugin starts, is listed, and stops with everything undone, newest first', async () => {
  const log: string[] = []
  const made = fixture({
    one: plugin((kernel) => {
      kernel.onStop(() => void log.push('first made'))
      kernel.onStop(async () => void log.push('second made'))
      kernel.hooks.health.collect.tap(() => ({ status: 'ok', message: 'fine' }))
      kernel.clock.setTimer(1000, () => log.push('never'))
      kernel.onStart(async (signal) => {
        log.push(`start ${signal.aborted}`)
        kernel.onStop(() => void log.push('third made'))
      })
    }),
  })
  await boot(made)
  const [status] = made.host.list()
  assert.equal(status?.state, 'ACTIVE')
  assert.equal(status?.version, '2.3.4')
  assert.equal(status?.generation, 1)
  assert.equal(made.registry.tapCount, 2)
  await made.host.stop()
  made.clock.advance(5000)
  assert.deepEqual(log, ['start false', 'third made', 'second made', 'first made'])
  assert.equal(made.registry.tapCount, 1)
  assert.equal(made.clock.timerCount, 0)
  assert.deepEqual(made.changes, [
    'one DISABLED>WAITING',
    'one WAITING>STARTING',
    'one STARTING>ACTIVE',
    'one ACTIVE>STOPPING',
    'one STOPPING>DISABLED',
  ])
})

test('plugins start in the order of their requirements and stop in reverse', async () => {
  const log: string[] = []
  const noted = (name: string, cairn: Record<string, unknown>, apply: (kernel: Kernel) => void = () => {}) =>
    plugin((kernel) => {
      log.push(`+${name}`)
      kernel.onStop(() => void log.push(`-${name}`))
      apply(kernel)
    }, cairn)
  const made = fixture({
    last: noted('last', { after: ['user'] }),
    user: noted('user', { requires: ['bell'] }, (kernel) => log.push(kernel.require<() => string>('bell')())),
    bell: noted('bell', { provides: ['bell'] }, (kernel) => kernel.provide('bell', () => 'ding')),
  })
  await boot(made)
  assert.deepEqual(
    made.host.services('bell').map((entry) => entry.plugin),
    ['bell'],
  )
  await made.host.stop()
  assert.deepEqual(log, ['+bell', '+user', 'ding', '+last', '-last', '-user', '-bell'])
})

test('WAITING until the requirement appears, and again when it goes; others are not touched', async () => {
  const log: string[] = []
  const made = fixture({
    user: plugin((kernel) => log.push(kernel.require<string>('bell')), { requires: ['bell'] }),
    bystander: plugin(() => log.push('bystander')),
    bell: plugin((kernel) => kernel.provide('bell', 'ding'), { provides: ['bell'] }),
  })
  made.source.config = { plugins: { enabled: ['user', 'bystander'] } }
  await boot(made)
  assert.equal(made.state('user'), 'WAITING')
  assert.match(
    made.host.list().find(({ name }) => name === 'user')?.reason ?? '',
    /requires the service "bell"/,
  )
  await made.host.enable('bell')
  assert.equal(made.state('user'), 'ACTIVE')
  await made.host.disable('bell')
  assert.equal(made.state('user'), 'WAITING')
  assert.equal(made.state('bell'), 'DISABLED')
  await made.host.enable('bell')
  await made.host.reload('bell')
  assert.equal(made.state('user'), 'ACTIVE')
  assert.deepEqual(log, ['bystander', 'ding', 'ding', 'ding'])
})

test('core services satisfy requirements and may not be provided by a plugin', async () => {
  const seen: unknown[] = []
  const made = fixture({
    user: plugin((kernel) => seen.push(kernel.require('client'), kernel.find('nothing')), {
      requires: ['client'],
    }),
    thief: plugin((kernel) => kernel.provide('client', 'mine'), { provides: ['client'] }),
  })
  await made.host.load()
  made.host.registerServices({ client: 'the core client' })
  await made.host.start()
  assert.deepEqual(seen, ['the core client', undefined])
  assert.equal(made.state('thief'), 'INCOMPATIBLE')
})

test('services that the manifest does not name are refused, and promised ones must be provided', async () => {
  const made = fixture({
    taker: plugin((kernel) => kernel.require('bell')),
    giver: plugin((kernel) => kernel.provide('bell', 1)),
    liar: plugin(() => {}, { provides: ['bell'] }),
  })
  await boot(made)
  const reasons = made.host.list().map(({ state, reason }) => `${state} ${reason}`)
  assert.match(reasons[0] ?? '', /FAILED .*requires "bell", but its manifest does not say so/)
  assert.match(reasons[1] ?? '', /FAILED .*provides "bell", but its manifest does not say so/)
  assert.match(reasons[2] ?? '', /FAILED .*kernel\.provide\(\) was not called/)
})

test('plugins in a circle of requirements are FAILED, with the circle', async () => {
  const made = fixture({
    a: plugin(() => {}, { requires: ['b'], provides: ['a'] }),
    b: plugin(() => {}, { requires: ['a'], provides: ['b'] }),
    free: plugin(() => {}),
  })
  await boot(made)
  assert.equal(made.state('free'), 'ACTIVE')
  const [, first] = made.host.list()
  assert.equal(first?.state, 'FAILED')
  assert.match(first?.reason ?? '', /circle of requirements: a -> b -> a/)
})

test('apply that throws, or returns a promise, is FAILED at once and leaves nothing behind', async () => {
  const made = fixture({
    thrower: plugin((kernel) => {
      kernel.hooks.health.collect.tap(() => undefined)
      boom()
    }),
    promiser: plugin((async () => boom()) as unknown as (kernel: Kernel) => void),
    fine: plugin(() => {}),
  })
  await boot(made)
  assert.equal(made.state('thrower'), 'FAILED')
  assert.equal(made.state('promiser'), 'FAILED')
  assert.equal(made.state('fine'), 'ACTIVE')
  assert.equal(made.registry.tapCount, 1)
  const [status] = made.host.list()
  assert.equal(status?.lastError?.code, 'PLUGIN_APPLY')
  assert.match(status?.lastError?.message ?? '', /plugin thrower: apply\(\) failed: boom/)
  assert.match(status?.lastError?.next ?? '', /cairn plugin reload/)
})

test('a failed start is retried with growing delays, and at last is FAILED', async () => {
  let tries = 0
  const made = fixture(
    { flaky: plugin((kernel) => kernel.onStart(() => void (++tries && boom()))) },
    { limits: { startRetriesMax: 2 } },
  )
  await boot(made)
  assert.equal(made.state('flaky'), 'RETRYING')
  made.clock.advance(1000)
  await until(() => tries === 2 && made.state('flaky') === 'RETRYING', 'second try')
  made.clock.advance(1000)
  assert.equal(tries, 2)
  made.clock.advance(1000)
  await until(() => made.state('flaky') === 'FAILED', 'the end of retries')
  assert.equal(tries, 3)
})

test('a start that works at the second try ends ACTIVE', async () => {
  let tries = 0
  const made = fixture({ flaky: plugin((kernel) => kernel.onStart(() => void (++tries === 1 && boom()))) })
  await boot(made)
  made.clock.advance(1000)
  await until(() => made.state('flaky') === 'ACTIVE', 'ACTIVE')
  assert.equal(made.clock.timerCount, 0)
})

test('disable ends the retries', async () => {
  let tries = 0
  const made = fixture({ flaky: plugin((kernel) => kernel.onStart(() => void (++tries && boom()))) })
  await boot(made)
  await made.host.disable('flaky')
  made.clock.advance(100_000)
  assert.equal(made.state('flaky'), 'DISABLED')
  assert.equal(tries, 1)
})

test('a start is warned about after 10 s and failed after 60 s, without a second start beside it', async () => {
  let aborted = false
  const made = fixture({
    slow: plugin((kernel) =>
      kernel.onStart((signal) => {
        signal.addEventListener('abort', () => (aborted = true))
        return stubborn()
      }),
    ),
    next: plugin(() => {}),
  })
  await made.host.load()
  const started = made.host.start()
  await until(() => made.state('slow') === 'STARTING', 'STARTING')
  made.clock.advance(10_000)
  assert.ok(made.logger.lines.includes('warn plugin slow has been starting for 10000 ms'))
  made.clock.advance(50_000)
  await started
  assert.equal(made.state('slow'), 'FAILED')
  assert.equal(aborted, true)
  assert.equal(made.state('next'), 'ACTIVE')
  assert.equal(made.clock.timerCount, 0)
})

test('stopping the process does not wait for a start that hangs', async () => {
  const made = fixture({ slow: plugin((kernel) => kernel.onStart(stubborn)), next: plugin(() => {}) })
  await made.host.load()
  const started = made.host.start()
  await until(() => made.state('slow') === 'STARTING', 'STARTING')
  await Promise.all([made.host.stop(), started])
  assert.deepEqual([made.state('slow'), made.state('next')], ['FAILED', 'WAITING'])
  assert.equal(made.clock.timerCount, 0)
})

test('a disposer that hangs or throws is reported after its deadline, and the next still runs', async () => {
  const log: string[] = []
  const made = fixture({
    messy: plugin((kernel) => {
      kernel.onStop(() => void log.push('made first'))
      kernel.onStop(boom)
      kernel.onStop(stubborn, { deadlineMs: 500 })
    }),
  })
  await boot(made)
  const disabled = made.host.disable('messy')
  await until(() => made.clock.timerCount > 0, 'the deadline')
  made.clock.advance(500)
  assert.equal((await disabled).state, 'DISABLED')
  assert.deepEqual(log, ['made first'])
  const errors = made.logger.lines.filter((line) => line.startsWith('error'))
  assert.equal(errors.length, 2)
  assert.match(errors[0] ?? '', /plugin messy failed to undo "onStop callback": .*500 ms/)
})

test('abort-boot: nothing of the process stays up, and the error says why', async () => {
  const made = fixture({
    first: plugin(() => {}),
    vital: plugin((kernel) => kernel.onStart(boom), { onFailure: 'abort-boot' }),
  })
  await made.host.load()
  await assert.rejects(made.host.start(), {
    code: 'PLUGIN_BOOT',
    message: /plugin vital is essential .* boom/,
  })
  assert.equal(made.state('first'), 'DISABLED')
})

test('abort-boot also for an essential plugin that is incompatible or cannot be imported', async () => {
  const old = fixture({ vital: plugin(() => {}, { engines: { core: '^9.0.0' }, onFailure: 'abort-boot' }) })
  await assert.rejects(old.host.load(), { code: 'PLUGIN_BOOT' })
  const broken = fixture({
    vital: { cairn: { onFailure: 'abort-boot' }, importError: new Error('bad code') },
  })
  await assert.rejects(broken.host.load(), { code: 'PLUGIN_BOOT', message: /bad code/ })
})

test('incompatible plugins are refused before import; the rest runs', async () => {
  const made = fixture({
    newer: plugin(() => {}, { engines: { core: '^2.0.0' } }),
    fine: plugin(() => {}),
  })
  await boot(made)
  assert.equal(made.state('newer'), 'INCOMPATIBLE')
  assert.deepEqual(
    made.source.imports.map(({ directory }) => directory),
    ['/plugins/fine'],
  )
  assert.match(made.host.list()[0]?.reason ?? '', /made for core \^2\.0\.0, and this is core 1\.2\.3/)
})

test('an unknown plugin and one that fails to import are FAILED; the rest runs', async () => {
  const made = fixture({ bad: { importError: new Error('syntax') }, fine: plugin(() => {}) })
  made.source.config = { plugins: { enabled: ['missing', 'bad', 'fine'] } }
  await boot(made)
  const states = made.host.list().map(({ name, state, lastError }) => `${name} ${state} ${lastError?.code}`)
  assert.deepEqual(states, [
    'missing FAILED PLUGIN_NOT_FOUND',
    'bad FAILED PLUGIN_IMPORT',
    'fine ACTIVE undefined',
  ])
})

test('nothing is imported that is not enabled, not for this role, or not the command being run', async () => {
  const made = fixture({
    off: plugin(() => {}),
    elsewhere: plugin(() => {}, { roles: ['mds'] }),
    mine: plugin(() => {}),
  })
  made.source.config = { plugins: { enabled: ['elsewhere', 'mine'] } }
  await boot(made)
  assert.deepEqual(
    made.source.imports.map(({ directory }) => directory),
    ['/plugins/mine'],
  )
  assert.equal(made.state('elsewhere'), 'DISABLED')
  for (const again of [await made.host.enable('elsewhere'), await made.host.reload('elsewhere')])
    assert.deepEqual([again.state, again.reason], ['DISABLED', 'made for mds; this process is client'])

  const cli = { roles: ['cli'] }
  const line = fixture(
    {
      hello: plugin(() => {}, { ...cli, commands: { hello: 'Says hello' } }),
      other: plugin(() => {}, { ...cli, commands: { other: 'Other' } }),
    },
    { role: 'cli', command: 'hello' },
  )
  await boot(line)
  assert.deepEqual(
    line.source.imports.map(({ directory }) => directory),
    ['/plugins/hello'],
  )
  assert.deepEqual(line.host.commands()[1], { name: 'other', description: 'Other', plugin: 'other' })

  const hooked = fixture(
    {
      hello: plugin(() => {}, { ...cli, commands: { hello: 'Says hello' } }),
      finder: plugin(() => {}, { ...cli, taps: ['discovery.resolve'] }),
      counter: plugin(() => {}, { ...cli, taps: ['metrics.collect'] }),
    },
    { role: 'cli', taps: ['discovery.resolve', 'discovery.list'] },
  )
  await boot(hooked)
  assert.deepEqual(
    hooked.source.imports.map(({ directory }) => directory),
    ['/plugins/finder'],
  )
})

test('one fault makes a plugin DEGRADED, a calm window ACTIVE again', async () => {
  const made = fixture({ shaky: plugin((kernel) => void kernel.hooks.cli.register.tap(boom)) })
  await boot(made)
  assert.deepEqual(made.registry.hooks.cli.register.call(), [])
  assert.equal(made.state('shaky'), 'DEGRADED')
  const [status] = made.host.list()
  assert.match(status?.lastError?.message ?? '', /boom/)
  assert.equal(status?.faultCount, 1)
  made.clock.advance(60_000)
  assert.equal(made.state('shaky'), 'ACTIVE')
  assert.ok(made.logger.lines.includes('error plugin shaky failed in cli.register: boom'))
})

test('too many faults in a window trip the plugin: muted at once, stopped, FAILED; others unaffected', async () => {
  let stopped = false
  let calls = 0
  const made = fixture({
    shaky: plugin((kernel) => {
      kernel.onStop(() => void (stopped = true))
      kernel.hooks.cli.register.tap(() => (calls++, boom()))
    }),
    fine: plugin((kernel) => void kernel.hooks.cli.register.tap(() => [])),
  })
  await boot(made)
  for (let call = 0; call < 10; call++) assert.equal(made.registry.hooks.cli.register.call().length, 1)
  assert.equal(calls, 5)
  await until(() => made.state('shaky') === 'FAILED', 'FAILED')
  assert.equal(stopped, true)
  assert.equal(made.state('fine'), 'ACTIVE')
  const status = made.host.list().find(({ name }) => name === 'shaky')
  assert.equal(status?.lastError?.code, 'PLUGIN_TRIPPED')
  assert.match(
    status?.reason ?? '',
    /stopped after 5 faults within 60000 ms, the last in cli\.register: boom/,
  )
  await made.host.reload('shaky')
  assert.equal(made.state('shaky'), 'ACTIVE')
})

test('faults that are far apart do not trip', async () => {
  const made = fixture({ shaky: plugin((kernel) => void kernel.hooks.cli.register.tap(boom)) })
  await boot(made)
  for (let call = 0; call < 20; call++) {
    made.registry.hooks.cli.register.call()
    made.clock.advance(16_000)
  }
  assert.equal(made.state('shaky'), 'DEGRADED')
})

test('errors in timers count as faults of the plugin', async () => {
  const made = fixture({
    shaky: plugin((kernel) => {
      kernel.clock.setTimer(10, boom)
      kernel.clock.setTimer(20, (async () => boom()) as () => void)
    }),
  })
  await boot(made)
  made.clock.advance(20)
  await until(() => made.host.list()[0]?.faultCount === 2, 'two faults')
  assert.match(made.logger.lines.join('\n'), /plugin shaky failed in a timer: boom/)
})

test('a plugin may call itself DEGRADED and take it back', async () => {
  let mark = (): (() => void) => () => {}
  const made = fixture({ modest: plugin((kernel) => (mark = () => kernel.degraded('no second portal'))) })
  await boot(made)
  const release = mark()
  assert.equal(made.state('modest'), 'DEGRADED')
  assert.equal(made.host.list()[0]?.reason, 'no second portal')
  release()
  assert.equal(made.state('modest'), 'ACTIVE')
})

test('operations on unknown plugins say so and leave nothing behind', async () => {
  const made = await boot(fixture({ one: plugin(() => {}) }))
  await assert.rejects(made.host.disable('nope'), { code: 'PLUGIN_UNKNOWN' })
  await assert.rejects(made.host.reload('nope'), { code: 'PLUGIN_UNKNOWN' })
  await assert.rejects(made.host.enable('nope'), { code: 'PLUGIN_NOT_FOUND' })
  assert.equal(made.host.list().length, 1)
  await made.host.disable('one')
  await assert.rejects(
    made.host.reload('one'),
    (error: CairnError) => error.next === 'Enable it with: cairn plugin enable one',
  )
  await made.host.stop()
  await assert.rejects(made.host.enable('one'), { code: 'CONTROL_BUSY' })
})

test('two plugins of one name are a configuration error', async () => {
  const made = fixture({ one: plugin(() => {}) })
  made.source.config = { plugins: { enabled: ['one', '@acme/one'] } }
  await assert.rejects(made.host.load(), {
    code: 'CONFIG_INVALID',
    message: /"one" and "@acme\/one" are both named one/,
  })
})

test('a plugin that registers after it was stopped is told so', async () => {
  let late: Kernel | undefined
  const made = await boot(fixture({ one: plugin((kernel) => void (late = kernel)) }))
  await made.host.disable('one')
  assert.throws(() => late?.hooks.health.collect.tap(() => undefined), { code: 'PLUGIN_STOPPED' })
  assert.throws(() => late?.onStop(() => {}), { code: 'PLUGIN_STOPPED' })
  assert.throws(() => late?.clock.setTimer(1, () => {}), { code: 'PLUGIN_STOPPED' })
  assert.equal(made.registry.tapCount, 1)
})
