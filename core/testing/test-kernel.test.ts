// Proves what docs/plugins.md promises to plugin authors: a plugin runs in a test as it runs in a process.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { definePlugin } from '../kernel/plugin.ts'
import { startTestKernel } from './test-kernel.ts'

const ticker = definePlugin({
  config: { pause: { doc: 'Time between ticks', format: 'duration', default: '1 min' } },
  apply(kernel, config) {
    let ticks = 0
    kernel.hooks.health.collect.tap(() => ({ status: 'ok', message: `${ticks} ticks` }))
    kernel.onStart(() => {
      const tick = (): void => {
        ticks += 1
        kernel.clock.setTimer(config.pause, tick)
      }
      kernel.clock.setTimer(config.pause, tick)
      kernel.onStop(() => kernel.logger.info('stopped'))
    })
  },
})

test('a plugin starts with its configuration, taps hooks, and lives on virtual time', async () => {
  const kernel = await startTestKernel({
    plugins: { ticker: { definition: ticker } },
    config: { plugins: { ticker: { pause: '10 s' } } },
  })
  assert.equal(kernel.state('ticker'), 'ACTIVE')
  await kernel.clock.advance(35_000)
  const reports = await kernel.hooks.health.collect.call()
  assert.match(JSON.stringify(reports), /3 ticks/)
  await kernel.reload('ticker')
  assert.match(JSON.stringify(await kernel.hooks.health.collect.call()), /0 ticks/)
  await kernel.stop()
  assert.ok(kernel.logLines.some((line) => line === 'info stopped'))
})

test('a wrong key in the configuration is refused before anything starts', async () => {
  await assert.rejects(
    startTestKernel({
      plugins: { ticker: { definition: ticker } },
      config: { plugins: { ticker: { pauze: '10 s' } } },
    }),
    /pauze/,
  )
})
