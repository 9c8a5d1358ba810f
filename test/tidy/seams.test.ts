// Proves that core reaches time, randomness, disks, network and processes only through the seams of
// core/platform, so that the simulator sees everything. The linter bans the same; this test reads the code by
// itself, because a linter that read nothing reports success (test/tidy/lint.test.ts proves that it reads).

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { importsOf, lineOf, parseSource, type SourceFile, sourceFiles, visit } from './source-tree.ts'

const checkedFileCountFloor = 60
const exemptPrefixes = ['core/platform/node/', 'core/node/', 'core/cli/']
const forbiddenGlobals = new Set([
  'Date',
  'performance',
  'setTimeout',
  'setInterval',
  'setImmediate',
  'process',
  'crypto',
  'fetch',
  'console',
])
const forbiddenModules =
  /^(node:)?(fs|net|child_process|dgram|dns|tls|http|https|http2|os|timers|process|perf_hooks|worker_threads|cluster|readline)(\/.*)?$/
const forbiddenPackages = new Set(['sqlite3', 'pino', 'rotating-file-stream'])
const cryptoModule = /^(node:)?crypto$/
const randomFunctions = /^(random.*|generate.*|getRandomValues|webcrypto)$/

function isChecked(file: SourceFile): boolean {
  return (
    file.path.startsWith('core/') &&
    !file.isTest &&
    !exemptPrefixes.some((prefix) => file.path.startsWith(prefix))
  )
}

interface Named {
  type: string
  start: number
  name?: unknown
}

/** Offsets of `Date`, `Math.random` and the like. A name that the file itself declares is not the global. */
function forbiddenUses(file: SourceFile): string[] {
  const uses = new Map<number, string>()
  const harmless = new Set<number>()
  const declared = new Set<string>()
  const declare = (node: Named | null) => {
    if (node?.type === 'Identifier' && typeof node.name === 'string') declared.add(node.name)
  }
  const excuse = (node: Named) => harmless.add(node.start)
  visit(file, {
    Identifier(node) {
      if (forbiddenGlobals.has(node.name)) uses.set(node.start, node.name)
    },
    MemberExpression(node) {
      if (node.computed || node.property.type !== 'Identifier') return
      const objectName = node.object.type === 'Identifier' ? node.object.name : ''
      if (objectName === 'Math' && node.property.name === 'random') uses.set(node.start, 'Math.random')
      if (objectName !== 'globalThis') excuse(node.property)
    },
    Property: (node) => void (node.computed || node.shorthand || excuse(node.key)),
    PropertyDefinition: (node) => void (node.computed || excuse(node.key)),
    MethodDefinition: (node) => void (node.computed || excuse(node.key)),
    TSPropertySignature: (node) => void (node.computed || excuse(node.key)),
    TSMethodSignature: (node) => void (node.computed || excuse(node.key)),
    VariableDeclarator: (node) => declare(node.id),
    ImportSpecifier: (node) => declare(node.local),
    FunctionDeclaration: (node) => node.params.forEach((parameter) => declare(parameter)),
    FunctionExpression: (node) => node.params.forEach((parameter) => declare(parameter)),
    ArrowFunctionExpression: (node) => node.params.forEach((parameter) => declare(parameter)),
  })
  return [...uses]
    .filter(([offset, name]) => !harmless.has(offset) && !declared.has(name))
    .map(([offset, name]) => `${file.path}:${lineOf(file, offset)}: ${name}`)
}

function forbiddenImports(file: SourceFile): string[] {
  return importsOf(file)
    .filter(
      ({ specifier, names }) =>
        forbiddenModules.test(specifier) ||
        forbiddenPackages.has(specifier) ||
        (cryptoModule.test(specifier) && names.some((name) => randomFunctions.test(name))),
    )
    .map(({ specifier, line }) => `${file.path}:${line}: ${specifier}`)
}

test('core reaches the outside world only through core/platform', () => {
  const files = sourceFiles().filter(isChecked)
  assert.ok(files.length >= checkedFileCountFloor, `checked only ${files.length} files`)
  assert.deepEqual(
    files.flatMap((file) => [...forbiddenUses(file), ...forbiddenImports(file)]),
    [],
  )
})

test('the reader sees each forbidden use and excuses what only looks like one', () => {
  const usesIn = (text: string) => forbiddenUses(parseSource('core/metadata/planted.ts', text)).length
  assert.equal(usesIn('export const a = Date.now(); setTimeout(() => {}, 1)'), 2)
  assert.equal(usesIn('export const a = Math.random() + performance.now()'), 2)
  assert.equal(usesIn('globalThis.setTimeout(() => {}, 1); process.exit(1)'), 2)
  assert.equal(usesIn('clock.setTimeout(1); const a = { process: 1, Date: 2 }; a.process'), 0)
  assert.equal(usesIn('export function f(process: Process) { return process.id }'), 0)
  const importsIn = (text: string) => forbiddenImports(parseSource('core/metadata/planted.ts', text)).length
  assert.equal(importsIn(`import fs from 'node:fs/promises'; import net from 'net'`), 2)
  assert.equal(importsIn(`import { randomBytes, createHash } from 'node:crypto'`), 1)
  assert.equal(importsIn(`import { createHash } from 'node:crypto'`), 0)
})
