/**
 * Proves that a stranger can write a plugin: the sample of docs/plugins.md is copied out of the tree, sees nothing of
 * Cairn but the public entry points, and is loaded, reloaded with changed code, made to throw, and unloaded, on real
 * files, real imports and the real clock, while another plugin beside it notices nothing.
 */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { test } from 'node:test'
import type { TestContext } from 'node:test'
import { promisify } from 'node:util'
import type { CliInvocation } from '../../core/kernel/hooks.ts'
import { kernelHooks } from '../../core/kernel/hooks.ts'
import { HookRegistry } from '../../core/kernel/hook-registry.ts'
import { PluginHost } from '../../core/kernel/host.ts'
import type { Role } from '../../core/kernel/manifest.ts'
import type { Logger } from '../../core/platform/logger.ts'
import { NodeClock } from '../../core/platform/node/clock.ts'
import { NodePluginSource } from '../../core/platform/node/plugin-source.ts'

const ROOT = resolve(import.meta.dirname, '../..')
const SAMPLE = join(ROOT, 'docs/examples/plugin-hello')
const CORE_VERSION = (
  JSON.parse(readFileSync(join(ROOT, 'core/package.json'), 'utf8')) as { version: string }
).version

/** A folder outside of the tree with the sample, a plugin beside it, and a configuration that enables both. */
function strangersPlace(t: TestContext) {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), 'cairn-stranger-')))
  t.after(() => rmSync(directory, { recursive: true }))
  mkdirSync(join(directory, 'node_modules/@cairn'), { recursive: true })
  symlinkSync(join(ROOT, 'core'), join(directory, 'node_modules/@cairn/core'))
  cpSync(SAMPLE, join(directory, 'plugin-hello'), { recursive: true })
  mkdirSync(join(directory, 'neighbour'))
  writeFileSync(
    join(directory, 'neighbour/package.json'),
    JSON.stringify({ type: 'module', cairn: { engines: { core: '^0.1.0' }, roles: ['client'] } }),
  )
  writeFileSync(
    join(directory, 'neighbour/index.ts'),
    `import { definePlugin } from '@cairn/core/plugin'
     export default definePlugin({
       apply(kernel) {
         kernel.hooks.health.collect.tap(() => ({ status: 'ok', message: 'neighbour' }))
       },
     })`,
  )
  const config = (section: object): void =>
    writeFileSync(
      join(directory, 'cairn.json'),
      JSON.stringify({ plugins: { enabled: ['./plugin-hello', './neighbour'], 'plugin-hello': section } }),
    )
  const edit = (file: string, from: string, to: string): void => {
    const path = join(directory, 'plugin-hello', file)
    const text = readFileSync(path, 'utf8')
    assert.ok(text.includes(from), `${file} holds ${from}`)
    writeFileSync(path, text.replace(from, to))
  }
  config({})
  return { directory, config, edit }
}

function boot(directory: string, role: Role, command?: string) {
  const clock = new NodeClock()
  const lines: string[] = []
  const log = (message: string): void => void lines.push(message)
  const logger: Logger = { debug: log, info: log, warn: log, error: log, child: () => logger }
  const registry = new HookRegistry(kernelHooks, clock)
  const host = new PluginHost({
    role,
    ...(command === undefined ? {} : { command }),
    coreVersion: CORE_VERSION,
    coreSchema: {},
    configFile: join(directory, 'cairn.json'),
    enabledByDefault: [],
    builtInDirectory: join(ROOT, 'plugins'),
    baseDirectories: [directory],
    source: new NodePluginSource(),
    clock,
    logger,
    registry,
  })
  const state = (name: string): string | undefined =>
    host.list().find((status) => status.name === name)?.state
  const health = async (): Promise<unknown[]> =>
    (await registry.hooks.health.collect.call()).map(({ value }) => value)
  return { host, registry, lines, state, health }
}

test('the sample is correct TypeScript by the public entry point alone', async () => {
  const tsc = join(ROOT, 'node_modules/.bin/tsc')
  await promisify(execFile)(process.execPath, [realpathSync(tsc), '-p', SAMPLE])
})

test('the sample imports only public entry points and its own files', () => {
  for (const file of ['index.ts', 'greeter.ts'])
    for (const [, specifier = ''] of readFileSync(join(SAMPLE, file), 'utf8').matchAll(/from '([^']+)'/g))
      assert.match(specifier, /^(@cairn\/core\/(plugin|client|testing)|\.\/[a-z-]+\.ts)$/)
})

test('it adds a command: only the plugin of the command is imported, and it runs', async (t) => {
  const { directory, config } = strangersPlace(t)
  config({ greeting: 'Good morning' })
  const { host, registry } = boot(directory, 'cli', 'hello')
  await host.load()
  await host.start()
  assert.deepEqual(host.commands(), [{ name: 'hello', description: 'Say hello', plugin: 'plugin-hello' }])
  const [registered] = registry.hooks.cli.register.call()
  assert.equal(registered?.plugin, 'plugin-hello')
  const printed: string[] = []
  const invocation: CliInvocation = {
    arguments: ['reader'],
    options: {},
    output: {
      json: false,
      line: (text) => printed.push(text),
      document: (_value, lines) => printed.push(...lines),
      warn: (text) => printed.push(text),
    },
    signal: new AbortController().signal,
  }
  await registered?.value[0]?.run?.(invocation)
  assert.deepEqual(printed, ['Good morning, reader!'])
  await host.stop()
})

test('its configuration is checked strictly', async (t) => {
  const { directory, config } = strangersPlace(t)
  config({ pause: 'soon' })
  await assert.rejects(boot(directory, 'client').host.load(), {
    code: 'CONFIG_INVALID',
    message:
      `${directory}/cairn.json is not valid:\n  plugins.plugin-hello.pause (plugin plugin-hello): ` +
      'expected a duration, found "soon". Write for example "30 s".',
  })
})

test('loaded, reloaded with changed code, made to throw, reloaded again, unloaded', async (t) => {
  const { directory, config, edit } = strangersPlace(t)
  const { host, registry, lines, state, health } = boot(directory, 'client')
  await host.load()
  await host.start()
  const neighbour = host.list().find(({ name }) => name === 'neighbour')
  assert.deepEqual([state('plugin-hello'), state('neighbour')], ['ACTIVE', 'ACTIVE'])
  assert.ok(lines.includes('Hello, log!'))
  assert.deepEqual(await health(), [
    { status: 'ok', message: '1 greetings so far' },
    { status: 'ok', message: 'neighbour' },
  ])
  const tapCount = registry.tapCount

  edit('greeter.ts', '${name}!', 'dear ${name}!')
  config({ greeting: 'Hi' })
  assert.equal((await host.reload('plugin-hello')).generation, 2)
  assert.ok(lines.includes('Goodbye'))
  assert.ok(lines.includes('Hi, dear log!'))
  assert.equal(registry.tapCount, tapCount)

  edit('index.ts', "status: 'ok',", "status: (() => { throw new Error('broken sample') })() as 'ok',")
  await host.reload('plugin-hello')
  for (let call = 0; call < 5; call++)
    assert.deepEqual(await health(), [{ status: 'ok', message: 'neighbour' }], 'the others are still heard')
  await host.disable('neighbour') // queued behind the stop of the tripped plugin
  await host.enable('neighbour')
  const tripped = host.list().find(({ name }) => name === 'plugin-hello')
  assert.equal(tripped?.state, 'FAILED')
  assert.equal(tripped?.lastError?.code, 'PLUGIN_TRIPPED')
  assert.match(tripped?.reason ?? '', /after 5 faults .* the last in health\.collect: broken sample/)
  assert.equal(neighbour?.faultCount, 0)

  edit('index.ts', "(() => { throw new Error('broken sample') })() as 'ok'", "'warning'")
  assert.equal((await host.reload('plugin-hello')).state, 'ACTIVE')
  assert.deepEqual(((await health())[0] as { status: string }).status, 'warning')

  assert.equal((await host.disable('plugin-hello')).state, 'DISABLED')
  assert.deepEqual(await health(), [{ status: 'ok', message: 'neighbour' }])
  assert.equal(state('neighbour'), 'ACTIVE')
  await host.stop()
  assert.equal(registry.tapCount, 0)
})
