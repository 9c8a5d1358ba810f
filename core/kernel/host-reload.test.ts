/** Proves that reloading swaps code and configuration of one plugin, keeps the old when the new is bad, and leaks nothing. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { definePlugin } from './plugin.ts'
import type { Kernel } from './plugin.ts'
import { fixture } from './test-support.ts'
import type { Fixture, MemoryPlugin } from './test-support.ts'

function plugin(apply: (kernel: Kernel) => void, cairn: Record<string, unknown> = {}): MemoryPlugin {
  return { cairn, definition: definePlugin({ apply }) }
}

async function boot(made: Fixture): Promise<Fixture> {
  await made.host.load()
  await made.host.start()
  return made
}

test('reload with broken code leaves the old one running and says what is wrong', async () => {
  let stops = 0
  const made = fixture({ one: plugin((kernel) => void kernel.onStop(() => void stops++)) })
  await boot(made)
  made.source.plugins.set('one', { importError: new Error('unexpected token') })
  await assert.rejects(made.host.reload('one'), { code: 'PLUGIN_IMPORT', message: /unexpected token/ })
  assert.equal(made.state('one'), 'ACTIVE')
  assert.equal(stops, 0)
  made.source.plugins.set(
    'one',
    plugin(() => {}),
  )
  const status = await made.host.reload('one')
  assert.equal(status.state, 'ACTIVE')
  assert.equal(status.generation, 3)
  assert.equal(stops, 1)
})

test('reload reads the configuration of that plugin anew', async () => {
  const seen: unknown[] = []
  const configured: MemoryPlugin = {
    definition: definePlugin({
      config: { port: { doc: 'A port', format: 'port', default: 3260 } },
      apply: (_kernel, config) => void seen.push(config.port),
    }),
  }
  const made = fixture({ one: configured })
  await boot(made)
  made.source.config = { other: 'not looked at', plugins: { enabled: ['one'], one: { port: 3261 } } }
  await made.host.reload('one')
  made.source.config = { plugins: { enabled: ['one'], one: { port: '12abc' } } }
  await assert.rejects(made.host.reload('one'), {
    code: 'CONFIG_INVALID',
    message: /plugins\.one\.port \(plugin one\)/,
  })
  assert.deepEqual(seen, [3260, 3261])
  assert.equal(made.state('one'), 'ACTIVE')
})

test('1000 reloads leave no tap, timer or service behind', async () => {
  const made = fixture({
    busy: plugin(
      (kernel) => {
        kernel.provide('bell', {})
        kernel.clock.setTimer(1e9, () => {})
        kernel.hooks.health.collect.tap(() => undefined)
        kernel.hooks.metrics.collect.tap(() => undefined)
      },
      { provides: ['bell'] },
    ),
  })
  await boot(made)
  const [taps, timers] = [made.registry.tapCount, made.clock.timerCount]
  for (let round = 0; round < 1000; round++) await made.host.reload('busy')
  assert.equal(made.registry.tapCount, taps)
  assert.equal(made.clock.timerCount, timers)
  assert.equal(made.host.services('bell').length, 1)
})
