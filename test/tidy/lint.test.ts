// Proves that the linter reads our code and that its settings bite: faults are planted in a small tree with
// this repository's own settings, and each must be reported. A linter that read nothing would say "fine".

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { test } from 'node:test'
import { rootDirectory } from './source-tree.ts'

const plantedText = `// Faults on purpose.
import { readFileSync } from 'node:fs'
import sqlite3 from 'sqlite3'
export const file = readFileSync('x')
export const driver = sqlite3
export const now = Date.now()
export const random = Math.random()
export const environment = process.env
setTimeout(() => undefined, 1)
Promise.resolve(1)
console.log('x')
`
const layerRules = [
  'no-restricted-globals',
  'no-restricted-properties',
  'no-restricted-imports',
  'no-console',
]

function lint(directory: string, path: string): string {
  const result = spawnSync(resolve(rootDirectory, 'node_modules/.bin/oxlint'), ['--type-aware', path], {
    cwd: directory,
    encoding: 'utf8',
  })
  assert.equal(result.error, undefined)
  return result.stdout + result.stderr
}

test('planted faults are reported where they are forbidden, and only there', () => {
  const directory = mkdtempSync(join(tmpdir(), 'cairn-lint-'))
  try {
    for (const name of ['.oxlintrc.json', 'tsconfig.json', 'package.json']) {
      cpSync(resolve(rootDirectory, name), join(directory, name))
    }
    symlinkSync(resolve(rootDirectory, 'node_modules'), join(directory, 'node_modules'))
    for (const room of ['core/metadata', 'core/platform/node']) {
      mkdirSync(join(directory, room), { recursive: true })
      writeFileSync(join(directory, room, 'planted.ts'), plantedText)
    }
    const forbidden = lint(directory, 'core/metadata/planted.ts')
    for (const rule of [...layerRules, 'no-floating-promises']) {
      assert.ok(forbidden.includes(`(${rule})`), `${rule} reported nothing:\n${forbidden}`)
    }
    for (const name of ['Date', 'process', 'setTimeout', 'node:fs', 'sqlite3', 'Math.random']) {
      assert.ok(forbidden.includes(name), `${name} was not reported:\n${forbidden}`)
    }
    const allowed = lint(directory, 'core/platform/node/planted.ts')
    assert.ok(allowed.includes('(no-floating-promises)'), allowed)
    for (const rule of layerRules) assert.ok(!allowed.includes(`(${rule})`), `${rule} in platform/node`)
  } finally {
    rmSync(directory, { recursive: true })
  }
})
