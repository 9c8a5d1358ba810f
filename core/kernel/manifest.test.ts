/** Proves what a manifest may hold, and that the rest is refused with a message that helps. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readManifest } from './manifest.ts'
import { MemorySource } from './test-support.ts'

function read(packageJson: unknown, name = 'hello') {
  const source = new MemorySource()
  source.readText = () => (typeof packageJson === 'string' ? packageJson : JSON.stringify(packageJson))
  return readManifest(source, `/plugins/${name}`, name, '1.4.0')
}

const good = { engines: { core: '^1.2.0' }, roles: ['client'] }
const withBlock = (block: Record<string, unknown>) => ({ version: '3.0.0', cairn: { ...good, ...block } })

test('a small manifest gets its defaults', () => {
  const manifest = read({ version: '3.0.0', exports: './main.ts', cairn: good })
  assert.deepEqual(
    { ...manifest },
    {
      name: 'hello',
      version: '3.0.0',
      description: '',
      entry: './main.ts',
      coreRange: '^1.2.0',
      roles: ['client'],
      commands: {},
      taps: [],
      requires: [],
      provides: [],
      after: [],
      onFailure: 'degrade',
      isolation: 'in-process',
      privileges: [],
    },
  )
})

test('the entry is found in exports and main, in all their shapes', () => {
  const entry = (fields: object): string | undefined => read({ ...fields, cairn: good }).entry
  assert.equal(entry({ exports: { '.': './a.js', './x': './x.js' } }), './a.js')
  assert.equal(entry({ exports: { import: './b.js', default: './c.js' } }), './b.js')
  assert.equal(entry({ exports: { '.': { default: './c.js' } } }), './c.js')
  assert.equal(entry({ main: 'd.js' }), 'd.js')
  assert.equal(entry({}), undefined)
})

const refused: readonly [string, unknown, RegExp][] = [
  ['not JSON', '{', /plugin hello: \/plugins\/hello\/package\.json: not valid JSON/],
  ['no block', { name: 'x' }, /expected an object under the key "cairn"/],
  ['no engine', { cairn: { roles: ['mds'] } }, /cairn\.engines\.core: expected a version range/],
  ['engine nonsense', withBlock({ engines: { core: 'new' } }), /cairn\.engines\.core: .* found "new"/],
  [
    'engine without major',
    withBlock({ engines: { core: '*' } }),
    /does not name one major version; expected .*"\^1\.4\.0"/,
  ],
  ['engine open upwards', withBlock({ engines: { core: '>=1.0.0' } }), /does not name one major version/],
  [
    'unknown role',
    withBlock({ roles: ['mds', 'boss'] }),
    /cairn\.roles\.1: expected a list with at least one of mds, cs, client, node, cli, found "boss"/,
  ],
  ['unknown key', withBlock({ role: ['mds'] }), /cairn\.role: unknown key; known are engines, roles/],
  [
    'bad onFailure',
    withBlock({ onFailure: 'panic' }),
    /cairn\.onFailure: expected "degrade" or "abort-boot", found "panic"/,
  ],
  ['cli without commands', withBlock({ roles: ['cli'] }), /cairn\.commands: expected at least one command/],
]
for (const [what, packageJson, message] of refused)
  test(`refused: ${what}`, () => {
    assert.throws(() => read(packageJson), { code: 'PLUGIN_MANIFEST', message })
  })

test('another major is incompatible, also when the manifest has keys that this core does not know', () => {
  const packageJson = withBlock({ engines: { core: '^2.0.0' }, invention: true })
  assert.throws(() => read(packageJson), {
    code: 'PLUGIN_INCOMPATIBLE',
    message: 'plugin hello is made for core ^2.0.0, and this is core 1.4.0; nothing of it was loaded',
  })
})

test('two majors may be named one by one', () => {
  assert.equal(read(withBlock({ engines: { core: '^1.0.0 || ^2.0.0' } })).coreRange, '^1.0.0 || ^2.0.0')
})

test('isolation "process" is refused until it exists', () => {
  assert.throws(() => read(withBlock({ isolation: 'process' })), {
    code: 'PLUGIN_INCOMPATIBLE',
    message: /isolation "process" is not available yet/,
  })
})

test('names that cannot be a config key are refused', () => {
  for (const name of ['enabled', 'My_Plugin', 'a.b'])
    assert.throws(() => read({ cairn: good }, name), { code: 'PLUGIN_MANIFEST' })
})
