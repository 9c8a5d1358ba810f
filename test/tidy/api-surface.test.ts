// Proves that the public surface of @cairn/core changes only on purpose: the names that its entry points
// export are compared with test/tidy/golden/api-surface.txt. After a wanted change, write it anew with
//   UPDATE_GOLDEN=1 node --test test/tidy/api-surface.test.ts
// and let the review see the difference. It compares names, not signatures: the compiler has no API yet.

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { test } from 'node:test'
import { parseSource, readText, resolveRelative, rootDirectory } from './source-tree.ts'

const goldenPath = 'test/tidy/golden/api-surface.txt'

/** Names exported by a module, `export *` followed; a type-only export is marked. */
function exportedNames(path: string, seen: Set<string> = new Set()): string[] {
  if (seen.has(path)) return []
  seen.add(path)
  const names: string[] = []
  for (const statement of parseSource(path, readText(path)).parsed.module.staticExports) {
    for (const entry of statement.entries) {
      if (entry.exportName.kind === 'None') {
        const target = resolveRelative(path, entry.moduleRequest?.value ?? '')
        assert.ok(target !== undefined, `${path} exports all of a package: name what is public`)
        names.push(...exportedNames(target, seen).filter((name) => name !== 'default'))
      } else {
        const name = entry.exportName.name ?? 'default'
        names.push(entry.isType ? `${name} (type)` : name)
      }
    }
  }
  return [...new Set(names)].sort()
}

function describeSurface(): string {
  const manifest = JSON.parse(readText('core/package.json')) as { exports: Record<string, string> }
  const sections = Object.entries(manifest.exports).map(([entryPoint, target]) => {
    const names = exportedNames(join('core', target))
    assert.ok(names.length > 0, `@cairn/core${entryPoint.slice(1)} exports nothing`)
    return `@cairn/core${entryPoint.slice(1)}\n${names.map((name) => `  ${name}\n`).join('')}`
  })
  return sections.join('\n')
}

test('@cairn/core has exactly the three public entry points', () => {
  const manifest = JSON.parse(readText('core/package.json')) as { exports: Record<string, string> }
  assert.deepEqual(Object.keys(manifest.exports), ['./plugin', './client', './testing'])
})

test('the public entry points export what the golden file says', () => {
  const surface = describeSurface()
  if (process.env['UPDATE_GOLDEN'] === '1') writeFileSync(resolve(rootDirectory, goldenPath), surface)
  assert.equal(surface, readText(goldenPath), 'the public surface changed; see the head of this test')
})
