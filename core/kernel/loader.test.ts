/** On real files and with real imports, because what is promised here is what Node and tsx do. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { NodePluginSource } from '../platform/node/plugin-source.ts'
import { CairnError } from '../base/errors.ts'
import { Loader } from './loader.ts'
import type { PluginSource } from './source.ts'

const CORE = fileURLToPath(new URL('..', import.meta.url))

interface Place {
  readonly directory: string
  readonly loader: Loader
  readonly write: (files: Readonly<Record<string, string>>) => void
  /** Locates, reads the manifest and imports; what `apply` pushes. */
  readonly run: (entry: string, generation?: number) => Promise<unknown[]>
}

function place(t: TestContext): Place {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), 'cairn-loader-')))
  t.after(() => rmSync(directory, { recursive: true }))
  mkdirSync(join(directory, 'node_modules/@cairn'), { recursive: true })
  symlinkSync(CORE, join(directory, 'node_modules/@cairn/core'))
  const source: PluginSource = new NodePluginSource()
  const loader = new Loader({
    source,
    coreVersion: '0.1.0',
    builtInDirectory: join(directory, 'built-in'),
    baseDirectories: [join(directory, 'etc'), directory],
  })
  const write = (files: Readonly<Record<string, string>>): void => {
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(join(directory, path)), { recursive: true })
      writeFileSync(join(directory, path), text)
    }
  }
  const run = async (entry: string, generation = 1): Promise<unknown[]> => {
    const located = loader.locate(entry)
    const definition = await loader.importPlugin(located, loader.manifest(located), generation)
    const said: unknown[] = []
    definition.apply(said as never, {} as never)
    return said
  }
  return { directory, loader, write, run }
}

function packageJson(fields: Record<string, unknown> = {}): string {
  return JSON.stringify({
    type: 'module',
    version: '1.0.0',
    cairn: { engines: { core: '^0.1.0' }, roles: ['client'] },
    ...fields,
  })
}

const applies = (expression: string): string =>
  `export default { apply(said) { said.push(${expression}) } }\n`

test('a name of ours, an npm package with and without scope, and a path', async (t) => {
  const { write, run, loader, directory } = place(t)
  write({
    'built-in/fuse/package.json': packageJson({ exports: './main.ts' }),
    'built-in/fuse/main.ts': `const kind: string = 'built-in'\n${applies('kind')}`,
    'node_modules/cairn-plugin-x/package.json': packageJson(),
    'node_modules/cairn-plugin-x/index.js': applies('"package"'),
    'node_modules/@acme/nbd/package.json': packageJson({ exports: { '.': './index.ts' } }),
    'node_modules/@acme/nbd/index.ts': `enum Kind { Scoped = 'scoped' }\n${applies('Kind.Scoped')}`,
    'elsewhere/mine/package.json': packageJson(),
    'elsewhere/mine/index.ts': `enum Kind { Path = 'path' }\n${applies('Kind.Path')}`,
  })
  assert.deepEqual(await run('fuse'), ['built-in'])
  assert.deepEqual(await run('cairn-plugin-x'), ['package'])
  assert.deepEqual(await run('@acme/nbd'), ['scoped'])
  assert.deepEqual(await run('../elsewhere/mine'), ['path'])
  assert.deepEqual(await run(join(directory, 'elsewhere/mine/'), 2), ['path'])
  assert.equal(loader.locate('@acme/nbd').name, 'nbd')
  assert.deepEqual(loader.builtInNames(), ['fuse'])
})

test('what does not exist, and what is no name, is refused with the places looked at', (t) => {
  const { loader } = place(t)
  for (const entry of ['nope', './nope', '../../nope', 'a/b', 'x y', '..', '@scope'])
    assert.throws(() => loader.locate(entry), { code: 'PLUGIN_NOT_FOUND' }, entry)
  assert.throws(() => loader.locate('nope'), { message: /nor an npm package in node_modules of .*etc or / })
})

for (const [kind, extension] of [
  ['TypeScript', 'ts'],
  ['JavaScript', 'js'],
] as const)
  test(`reload sees changed code, also in imported files: ${kind}`, async (t) => {
    const { write, run } = place(t)
    const library = (version: number): string => `export const version = ${version}\n`
    write({
      'etc/one/package.json': packageJson(),
      [`etc/one/index.${extension}`]: `import { version } from './lib/version.${extension}'\n${applies('version')}`,
      [`etc/one/lib/version.${extension}`]: library(1),
    })
    assert.deepEqual(await run('./one', 1), [1])
    write({ [`etc/one/lib/version.${extension}`]: library(2) })
    assert.deepEqual(await run('./one', 1), [1])
    assert.deepEqual(await run('./one', 2), [2])
  })

test('reload sees changed code of a built-in plugin and of CommonJS', async (t) => {
  const { write, run } = place(t)
  write({
    'built-in/one/package.json': packageJson(),
    'built-in/one/index.ts': `import { version } from './version.ts'\n${applies('version')}`,
    'built-in/one/version.ts': 'export const version: number = 1\n',
    'etc/old/package.json': packageJson({ type: 'commonjs', main: 'main.cjs' }),
    'etc/old/main.cjs':
      'exports.apply = (said) => said.push(require("./version.cjs"))\nexports.default = exports\n',
    'etc/old/version.cjs': 'module.exports = 1\n',
  })
  assert.deepEqual([await run('one', 1), await run('./old', 1)], [[1], [1]])
  write({
    'built-in/one/version.ts': 'export const version: number = 2\n',
    'etc/old/version.cjs': 'module.exports = 2\n',
  })
  assert.deepEqual([await run('one', 2), await run('./old', 2)], [[2], [2]])
})

test('core is one instance for all generations and for tsx, dependencies too', async (t) => {
  const { write, run } = place(t)
  write({
    'etc/one/package.json': packageJson(),
    'etc/one/index.ts': `import { CairnError } from '@cairn/core/plugin'\nimport { token } from 'library'\n${applies('CairnError, token')}`,
    'node_modules/library/package.json': JSON.stringify({ type: 'module', exports: './index.js' }),
    'node_modules/library/index.js': 'export const token = {}\n',
  })
  const [first, second] = [await run('./one', 1), await run('./one', 2)]
  assert.equal(first[0], CairnError)
  assert.equal(second[0], CairnError)
  assert.equal(first[1], second[1])
})

test('code that does not parse, throws, or exports something else is told with its file', async (t) => {
  const { write, run } = place(t)
  write({
    'etc/broken/package.json': packageJson(),
    'etc/broken/index.js': 'export default {',
    'etc/thrower/package.json': packageJson(),
    'etc/thrower/index.ts': 'throw new Error("at import")',
    'etc/empty/package.json': packageJson(),
    'etc/empty/index.js': 'export const x = 1',
    'etc/none/package.json': packageJson({ exports: './missing.js' }),
  })
  await assert.rejects(run('./broken'), {
    code: 'PLUGIN_IMPORT',
    message: /plugin broken: importing .*broken\/index\.js failed/,
  })
  await assert.rejects(run('./thrower'), { code: 'PLUGIN_IMPORT', message: /at import/ })
  await assert.rejects(run('./empty'), {
    code: 'PLUGIN_IMPORT',
    message: /expected "export default definePlugin/,
  })
  await assert.rejects(run('./none'), { code: 'PLUGIN_IMPORT', message: /there is no file \.\/missing\.js/ })
})

test('reading the manifest runs no code, and an incompatible plugin is refused from it', (t) => {
  const { write, loader } = place(t)
  const cairn = { engines: { core: '^7.0.0' }, roles: ['client'] }
  write({
    'etc/newer/package.json': packageJson({ cairn }),
    'etc/newer/index.js': 'globalThis.cairnTestWasImported = true\nexport default { apply() {} }',
  })
  assert.throws(() => loader.manifest(loader.locate('./newer')), { code: 'PLUGIN_INCOMPATIBLE' })
  assert.equal('cairnTestWasImported' in globalThis, false)
})

test('no translated code is kept where others could replace it', (t) => {
  const { write, directory } = place(t)
  write({
    'etc/one/package.json': packageJson(),
    'etc/one/index.ts': `enum Kind { A = 'a' }\n${applies('Kind.A')}`,
    'main.ts':
      `import { NodePluginSource } from '${join(CORE, 'platform/node/plugin-source.ts')}'\n` +
      `const directory = '${directory}/etc/one'\n` +
      `const request = { directory, file: directory + '/index.ts', generation: 1, transpiler: 'tsx' } as const\n` +
      `const { default: plugin } = await new NodePluginSource().importModule(request)\n` +
      `plugin.apply([])\n`,
    'tmp/empty': '',
  })
  execFileSync(process.execPath, [join(directory, 'main.ts')], { env: { TMPDIR: join(directory, 'tmp') } })
  assert.deepEqual(readdirSync(join(directory, 'tmp')), ['empty'])
})
