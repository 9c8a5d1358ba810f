// Every situation that the code marks is one the simulation has to visit, and says of which rule it is a case.
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { situations } from './situations.ts'

const core = path.join(import.meta.dirname, '../../core')
const MARK = /\bmark\(([^;{)]*)\)/g

test('the list of situations is that of the marks in the code', () => {
  const marked = new Set<string>()
  for (const file of readdirSync(core, { recursive: true, encoding: 'utf8' })) {
    if (!file.endsWith('.ts') || file === path.join('base', 'coverage.ts')) continue
    const source = readFileSync(path.join(core, file), 'utf8')
    for (const [, names = ''] of source.matchAll(MARK))
      for (const [, name = ''] of names.matchAll(/'([^']{6,})'/g)) marked.add(name)
  }
  assert.deepEqual([...marked].toSorted(), Object.keys(situations).toSorted())
})
