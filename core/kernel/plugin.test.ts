/** Proves the types that a plugin author sees: the compiler checks each line marked as an error (npm run check). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { definePlugin } from './index.ts'
import type { HostPort } from './index.ts'
import { syncHook } from './hook.ts'
import { fixture } from './test-support.ts'

const config = {
  port: { doc: 'Port', format: 'port', default: 3260 },
  mode: { doc: 'Mode', format: ['fast', 'safe'], default: 'safe' },
  portal: { address: { doc: 'Address', format: 'host:port', default: null, nullable: true } },
} as const

test('config values and hooks have types', async () => {
  const seen: unknown[] = []
  const definition = definePlugin({
    config,
    apply(kernel, values) {
      const port: number = values.port
      const mode: 'fast' | 'safe' = values.mode
      const address: HostPort | null = values.portal.address
      seen.push(port, mode, address)
      // @ts-expect-error the configuration is read-only
      assert.throws(() => (values.port = 1), TypeError)
      // @ts-expect-error not a key of the schema
      assert.equal(values.nope, undefined)
      // @ts-expect-error not a status
      kernel.hooks.health.collect.tap(() => ({ status: 'fine', message: '' }))
      // @ts-expect-error plugins tap, only the owning room fires
      assert.equal(kernel.hooks.health.collect.call, undefined)
    },
  })
  const made = fixture({ one: { definition } })
  await made.host.load()
  await made.host.start()
  assert.equal(made.state('one'), 'ACTIVE')
  assert.deepEqual(seen, [3260, 'safe', null])
  await made.host.stop()
})

test('definitions that make no sense are refused by the compiler', () => {
  const traits = { name: 'x.y', since: '1', stability: 'stable', description: 'x' } as const
  const one = ['a: string'] as const
  // @ts-expect-error nobody asks a notify hook, so it cannot fail closed
  syncHook.notify<[a: string]>({ ...traits, onFault: 'fail-closed', parameters: one })
  // @ts-expect-error every argument has its line
  const short = syncHook.veto<[a: string, b: number]>({ ...traits, onFault: 'ignore', parameters: one })
  assert.equal(short.parameters.length, 1)
})
