/** Proves what a configuration file may say, and what a person is told when it says something else. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { buildConfig, enabledPlugins, parseConfigText, schemaProblem } from './config.ts'
import type { ConfigRequest } from './config.ts'
import { parseLeaf } from './config-format.ts'
import type { ConfigFormat, ConfigSchema } from './config-format.ts'

const core = {
  mds: {
    port: { doc: 'Base port', format: 'port', default: 2510 },
    peers: { doc: 'Peers', format: 'string[]', default: [] },
  },
  memory: { doc: 'Memory', format: 'bytes', default: '64 MiB', env: 'CAIRN_MEMORY' },
} as const
const hello = {
  greeting: { doc: 'What it says', format: 'string', default: 'hello' },
  pause: { doc: 'Pause', format: 'duration', default: '1 s' },
  level: { doc: 'Level', format: ['low', 'high'], default: 'low' },
  target: { doc: 'Target', format: 'host:port', default: null, nullable: true },
  secret: { doc: 'Secret', format: 'string', default: '', sensitive: true },
  labels: { doc: 'Labels', format: 'object', default: {} },
} as const

function build(raw: Record<string, unknown>, more: Partial<ConfigRequest<typeof core>> = {}) {
  return buildConfig({
    file: '/etc/cairn/cairn.json',
    raw,
    core,
    sections: [{ plugin: 'hello', schema: hello }],
    ignored: [],
    enabledByDefault: ['hello'],
    environment: {},
    ...more,
  })
}

test('defaults, file and environment, each over the one before; values are parsed, typed and frozen', () => {
  const raw = {
    mds: { port: 3000 },
    memory: '1 GiB',
    plugins: { hello: { pause: '2.5s', target: '[fd00::1]:80', labels: { a: { b: { c: [1] } } } } },
  }
  const config = build(raw, { environment: { CAIRN_MEMORY: '2 GiB' } })
  const port: number = config.core.mds.port // typed
  assert.equal(port, 3000)
  assert.equal(config.core.memory, 2 * 1024 ** 3)
  assert.deepEqual(config.plugins.get('hello'), {
    greeting: 'hello',
    pause: 2500,
    level: 'low',
    target: { host: 'fd00::1', port: 80 },
    secret: '',
    labels: { a: { b: { c: [1] } } },
  })
  const plugin = config.plugins.get('hello') as { greeting: string; labels: { a: object } }
  assert.throws(() => (plugin.greeting = 'x'), TypeError)
  assert.throws(() => Object.assign(plugin.labels.a, { x: 1 }), TypeError)
})

test('an error names file, key, plugin, what was expected and the next step; all are told at once', () => {
  const raw = {
    mds: { port: '12abc', prot: 1 },
    plugins: { hello: { level: 'medium', greting: 'x' }, nope: {} },
  }
  assert.throws(() => build(raw), {
    code: 'CONFIG_INVALID',
    message: [
      '/etc/cairn/cairn.json is not valid:',
      '  mds.prot: unknown key; known are port, peers. Did you mean "port"?.',
      '  plugins.hello.greting (plugin hello): unknown key; known are greeting, pause, level, target, secret, labels. Did you mean "greeting"?.',
      '  plugins.nope: there is no enabled plugin "nope". Add "nope" to plugins.enabled in /etc/cairn/cairn.json, or remove this section.',
      '  mds.port: expected a TCP port from 1 to 65535, found "12abc". Write for example 3260.',
      '  plugins.hello.level (plugin hello): expected one of "low", "high", found "medium". Write for example "low".',
    ]
      .join('\n')
      .replaceAll('?.', '?'),
  })
})

test('the value of a sensitive key is never shown, neither in an error nor in the dump', () => {
  assert.throws(
    () => build({ plugins: { hello: { secret: ['hunter2'] } } }),
    (error: Error) => {
      assert.match(error.message, /plugins\.hello\.secret .*\(a secret, not shown\)/)
      assert.doesNotMatch(error.message, /hunter2/)
      return true
    },
  )
  const { masked } = build({ plugins: { hello: { secret: 'hunter2' } } })
  assert.doesNotMatch(masked, /hunter2/)
})

test('a value where a section belongs, and a section where a value belongs', () => {
  assert.throws(() => build({ plugins: { hello: 5 } }), {
    message: /plugins\.hello .*expected a section, found 5/,
  })
  assert.throws(() => build({ memory: { a: 1 } }), {
    message: /memory: expected a size in bytes, found \{"a":1\}/,
  })
})

test('a key without default must be set', () => {
  const schema = { token: { doc: 'Token of the service', format: 'string', default: null } } as const
  assert.throws(() => build({}, { sections: [{ plugin: 'hello', schema }] }), {
    message:
      /plugins\.hello\.token \(plugin hello\): must be set: a string \(Token of the service\)\. Write for example "text"/,
  })
})

test('sections of plugins that this process does not load are left alone', () => {
  assert.equal(build({ plugins: { iscsi: { anything: 1 } } }, { ignored: ['iscsi'] }).core.mds.port, 2510)
})

test('names that reach into prototypes are unknown keys', () => {
  const raw = JSON.parse('{"__proto__": {"x": 1}, "constructor": {"prototype": {"y": 1}}}') as Record<
    string,
    unknown
  >
  assert.throws(() => build(raw), { message: /__proto__: unknown key[^]*constructor: unknown key/ })
  assert.equal(({} as Record<string, unknown>)['x'], undefined)
})

test('plugins.enabled is read before anything else, and has its own error', () => {
  assert.deepEqual(enabledPlugins('f', {}, ['fuse']), ['fuse'])
  assert.deepEqual(enabledPlugins('f', { plugins: { enabled: ['./x'] } }, ['fuse']), ['./x'])
  assert.throws(() => enabledPlugins('f', { plugins: { enabled: 'fuse' } }, []), {
    code: 'CONFIG_INVALID',
    message: /f is not valid:\n {2}plugins\.enabled: expected a list of plugin names, found "fuse"/,
  })
})

test('text that is not a JSON object', () => {
  assert.deepEqual(parseConfigText('f', undefined), {})
  assert.throws(() => parseConfigText('f', '{'), { code: 'CONFIG_READ', message: /f is not valid JSON/ })
  assert.throws(() => parseConfigText('f', '[]'), {
    code: 'CONFIG_READ',
    message: 'f must hold a JSON object',
  })
})

const formats: readonly [ConfigFormat, unknown, unknown][] = [
  ['integer', '12', 12],
  ['integer', '12abc', undefined],
  ['integer', 1.5, undefined],
  ['number', '0.5', 0.5],
  ['number', Number.NaN, undefined],
  ['boolean', 'false', false],
  ['boolean', 'nope', undefined],
  ['port', 0, undefined],
  ['port', 65_536, undefined],
  ['port', '3260', 3260],
  ['bytes', 4096, 4096],
  ['bytes', '1.5GB', 1_500_000_000],
  ['bytes', '64 MiB', 67_108_864],
  ['bytes', '64 MiBs', undefined],
  ['bytes', '-1', undefined],
  ['duration', '5 min', 300_000],
  ['duration', '1h', 3_600_000],
  ['duration', 'soon', undefined],
  ['host:port', '10.0.0.1:2510', { host: '10.0.0.1', port: 2510 }],
  ['host:port', 'fd00::1:2510', undefined],
  ['host:port', 'host:99999', undefined],
  ['host:port', 'host', undefined],
  ['path', '/a/b', '/a/b'],
  ['path', 'a/b', undefined],
  ['string', 5, undefined],
  ['string[]', 'a, b', ['a', 'b']],
  ['string[]', ['a', 1], undefined],
  ['object', [], undefined],
]
test('formats take what they say and nothing that merely begins like it', () => {
  for (const [format, raw, expected] of formats) {
    const parsed = parseLeaf({ doc: '', format, default: null }, raw)
    assert.deepEqual(
      'value' in parsed ? parsed.value : undefined,
      expected,
      `${format} ${JSON.stringify(raw)}`,
    )
  }
})

test('a wrong schema is found before it is used', () => {
  const leaf = { doc: 'x', format: 'int', default: 1 } as unknown as ConfigSchema
  assert.match(
    schemaProblem({ a: { b: leaf } }) ?? '',
    /a\.b: unknown format "int"; known are string, number/,
  )
  assert.match(
    schemaProblem({ p: { doc: 'x', format: 'port', default: 'x' } }) ?? '',
    /p: its own default is not a TCP port/,
  )
  assert.match(
    schemaProblem({ 'a.b': { doc: 'x', format: 'port', default: 1 } }) ?? '',
    /a key is made of letters/,
  )
  assert.equal(schemaProblem(hello), undefined)
})
