// Proves the shape every source file has: short, named in kebab-case, opened by a comment that says what it
// is, without unfinished business, and without tests that are switched off.

import assert from 'node:assert/strict'
import { basename } from 'node:path'
import { test } from 'node:test'
import { lineOf, listFiles, parseSource, type SourceFile, sourceFiles, visit } from './source-tree.ts'

const lineCountMax = 400
const testLineCountMax = 500
const testFunctions = new Set(['test', 'it', 'describe', 'suite', 't', 'context'])
const switches = new Set(['only', 'skip', 'todo'])

test('no file is longer than one sitting', () => {
  const long = sourceFiles()
    .map((file) => ({
      path: file.path,
      lineCount: file.text.trimEnd().split('\n').length,
      lineCountMax: file.isTest ? testLineCountMax : lineCountMax,
    }))
    .filter((file) => file.lineCount > file.lineCountMax)
  assert.deepEqual(long, [])
})

test('files and folders are named in kebab-case', () => {
  const paths = listFiles(['{core,plugins,test,bench,scripts,appliance,docs}/**/*.{ts,mjs,sh,md,txt}'])
  assert.ok(paths.length > sourceFiles().length, 'the listing is broken')
  const badlyNamed = paths.filter(
    (path) =>
      basename(path) !== 'README.md' &&
      !path.split('/').every((part) => /^[a-z0-9]+([-.][a-z0-9]+)*$/.test(part)),
  )
  assert.deepEqual(badlyNamed, [])
})

test('every file opens with a comment that says what it is', () => {
  const silent = sourceFiles()
    .filter((file) => !/^(#![^\n]*\n)?(\/\/ \S|\/\*)/.test(file.text))
    .map((file) => file.path)
  assert.deepEqual(silent, [])
})

function unfinishedIn(file: SourceFile): string[] {
  return file.parsed.comments
    .filter((comment) => /\b(TODO|FIXME|XXX|HACK)\b/.test(comment.value))
    .map((comment) => `${file.path}:${lineOf(file, comment.start)}`)
}

test('no comment leaves work for later', () => {
  assert.deepEqual(sourceFiles().flatMap(unfinishedIn), [])
  // Written in two halves, so that this very line is none.
  assert.equal(unfinishedIn(parseSource('planted.ts', `// ${'TO'}${'DO'}: later\n`)).length, 1)
})

function switchedOffIn(file: SourceFile): string[] {
  const found: string[] = []
  visit(file, {
    CallExpression(node) {
      const { callee } = node
      const isSwitched =
        callee.type === 'MemberExpression' &&
        callee.object.type === 'Identifier' &&
        testFunctions.has(callee.object.name) &&
        callee.property.type === 'Identifier' &&
        switches.has(callee.property.name)
      const isTestCall = callee.type === 'Identifier' && testFunctions.has(callee.name)
      const hasSwitch =
        isTestCall &&
        node.arguments.some(
          (argument) =>
            argument.type === 'ObjectExpression' &&
            argument.properties.some(
              (property) =>
                property.type === 'Property' &&
                property.key.type === 'Identifier' &&
                switches.has(property.key.name),
            ),
        )
      if (isSwitched || hasSwitch) found.push(`${file.path}:${lineOf(file, node.start)}`)
    },
  })
  return found
}

test('no test is switched off or singled out', () => {
  const testFiles = sourceFiles().filter((file) => file.isTest)
  assert.deepEqual(testFiles.flatMap(switchedOffIn), [])
  const planted = `test.only('a', () => {}); test('b', { skip: true }, () => {}); t.todo()`
  assert.equal(switchedOffIn(parseSource('planted.ts', planted)).length, 3)
})
