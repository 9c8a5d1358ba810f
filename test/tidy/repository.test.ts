// Proves facts about the files around the code: the lock file names no registry, links in the documents
// lead somewhere, the shell scripts parse, and each workspace carries the same licence.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join, normalize, resolve } from 'node:path'
import { test } from 'node:test'
import { listFiles, readText, rootDirectory } from './source-tree.ts'

const documentCountFloor = 3
const linkCountFloor = 5

test('the lock file and the npm settings name no registry', () => {
  const lock = JSON.parse(readText('package-lock.json')) as {
    packages: Record<string, { resolved?: string }>
  }
  const entries = Object.entries(lock.packages)
  assert.ok(entries.length > 100, `the lock file holds only ${entries.length} packages`)
  const resolved = entries
    .map(([, entry]) => entry.resolved ?? '')
    .filter((target) => target !== '' && !/^(core|plugins\/[a-z0-9-]+)$/.test(target))
  assert.deepEqual(resolved, [])
  assert.doesNotMatch(readText('package-lock.json'), /"resolved": "[a-z+]+:/)
  assert.match(readText('.npmrc'), /^omit-lockfile-registry-resolved=true$/m)
  assert.doesNotMatch(readText('.npmrc'), /registry=|:_auth|\/\//)
})

test('the lock file names the optional packages of every system, or npm 11 refuses it', () => {
  const lock = JSON.parse(readText('package-lock.json')) as {
    packages: Record<string, { optionalDependencies?: Record<string, string> }>
  }
  const missing = Object.entries(lock.packages).flatMap(([path, entry]) =>
    Object.keys(entry.optionalDependencies ?? {}).filter(
      (name) =>
        !(`node_modules/${name}` in lock.packages) && !(`${path}/node_modules/${name}` in lock.packages),
    ),
  )
  assert.deepEqual(missing, [], 'run: node scripts/complete-lock-file.mjs')
})

/** The anchors GitHub makes of a document's headings. */
function anchorsOf(text: string): Set<string> {
  const headings = text.matchAll(/^#{1,6} (.*)$/gm)
  return new Set(
    [...headings].map(([, heading = '']) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
        .trim()
        .replaceAll(' ', '-'),
    ),
  )
}

test('links between documents lead somewhere', () => {
  const documents = listFiles(['*.md', 'docs/**/*.md', '{core,plugins,appliance,bench,test}/**/*.md'])
  assert.ok(documents.length >= documentCountFloor, `found only ${documents.length} documents`)
  const broken: string[] = []
  let linkCount = 0
  for (const path of documents) {
    const prose = readText(path).replaceAll(/^```.*?^```/gms, '')
    for (const [, link = ''] of prose.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(link)) continue
      linkCount += 1
      const [target = '', anchor] = link.split('#')
      const targetPath = target === '' ? path : normalize(join(dirname(path), target))
      if (!existsSync(resolve(rootDirectory, targetPath))) broken.push(`${path}: ${link}`)
      else if (anchor !== undefined && !anchorsOf(readText(targetPath)).has(anchor)) {
        broken.push(`${path}: ${link} (no such heading)`)
      }
    }
  }
  assert.ok(linkCount >= linkCountFloor, `found only ${linkCount} links`)
  assert.deepEqual(broken, [])
})

test('the source files that documents name exist', () => {
  const sources = listFiles(['{core,plugins,test,bench,scripts}/**/*.ts']).map((path) => `/${path}`)
  const named: string[] = []
  const missing: string[] = []
  for (const path of listFiles(['docs/**/*.md'])) {
    // With its folder, from wherever it is plain; a bare name means a file of the room that was named before.
    for (const [name] of readText(path).matchAll(/\b[a-z]+(?:\/[a-z-]+)+(?:\.test)?\.ts\b/g)) {
      named.push(name)
      if (!sources.some((source) => source.endsWith(`/${name}`))) missing.push(`${path}: ${name}`)
    }
  }
  assert.ok(named.length > 40, `only ${named.length} names were read`)
  assert.deepEqual(missing, [])
})

test('the shell scripts parse', () => {
  const scripts = [...listFiles(['scripts/*.sh']), 'scripts/cairn', '.ci/run']
  assert.ok(scripts.length >= 4)
  for (const path of scripts) {
    const shell = readText(path).startsWith('#!/usr/bin/env bash') ? 'bash' : 'sh'
    const result = spawnSync(shell, ['-n', path], { cwd: rootDirectory, encoding: 'utf8' })
    assert.equal(result.status, 0, `${path}: ${result.stderr}`)
  }
})

test('the packages agree on licence and module kind', () => {
  assert.match(readText('LICENSE'), /Apache License\s+Version 2\.0/)
  const manifests = listFiles(['package.json', 'core/package.json', 'plugins/*/package.json'])
  assert.ok(manifests.length >= 3)
  for (const path of manifests) {
    const manifest = JSON.parse(readText(path)) as { license?: string; type?: string }
    assert.deepEqual([manifest.license, manifest.type], ['Apache-2.0', 'module'], path)
  }
})
