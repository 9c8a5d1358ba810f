// Proves the layers of docs/architecture.md: a room of core imports only the rooms below it; the metadata
// server, the chunk server and the client know each other only by messages; core never imports a plugin;
// a plugin imports only the three public entry points. Reads the code's imports, types included.

import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { test } from 'node:test'
import {
  type ImportReference,
  importsOf,
  parseSource,
  resolveRelative,
  rootDirectory,
  type SourceFile,
  sourceFiles,
} from './source-tree.ts'

const importCountFloor = 400

const layerByRoom: Record<string, number> = {
  base: 0,
  platform: 1,
  kernel: 2,
  wire: 2,
  worker: 2,
  raft: 3,
  placement: 3,
  discovery: 3,
  metadata: 4,
  chunkserver: 4,
  client: 5,
  api: 6,
  cli: 6,
  testing: 6,
  node: 7,
}
// Below by layer, but strangers: they meet over wire/ only.
const strangers: Record<string, string[]> = { client: ['metadata', 'chunkserver', 'raft', 'placement'] }
/** Inside of a room: folders from the lowest up; what lies in the room itself is above them all. */
const foldersUpward: Record<string, string[]> = {
  chunkserver: ['format', 'replica', 'store', 'repair'],
  client: ['session', 'chunk', 'file'],
  'metadata/state': ['columns'],
  'metadata/control': ['servers', 'replication', 'scrub'],
  'metadata/server': ['services'],
  testing: ['simulation', 'linearizability'],
}
// Plain declarations that every folder of the room speaks of.
const contracts = ['core/client/api.ts']
const publicEntryPoints = ['@cairn/core/plugin', '@cairn/core/client', '@cairn/core/testing']
// The composition root, what a person starts, and the test kit choose the real platform; nobody else does.
const realPlatformUsers = ['node', 'cli', 'testing']
// The public client fills it in for programs; its parts take it through their constructors.
const realPlatformFiles = ['core/client/connect.ts']

function roomOf(path: string): string | undefined {
  const [top, room, ...rest] = path.split('/')
  return top === 'core' && rest.length > 0 ? room : undefined
}

/** Within one room: does the import go up? */
function complaintInRoom(from: string, target: string): string | undefined {
  if (contracts.includes(target)) return undefined
  for (const [room, folders] of Object.entries(foldersUpward)) {
    const inside = `core/${room}/`
    if (!from.startsWith(inside) || !target.startsWith(inside)) continue
    const folderOf = (path: string): string => path.slice(inside.length).split('/').slice(0, -1)[0] ?? ''
    const heightOf = (folder: string): number => (folder === '' ? folders.length : folders.indexOf(folder))
    const [fromFolder, toFolder] = [folderOf(from), folderOf(target)]
    if (fromFolder === 'testing') continue
    if (heightOf(toFolder) > heightOf(fromFolder)) return `${fromFolder} is below ${toFolder || 'the room'}`
  }
  return undefined
}

function complaintInCore(file: SourceFile, target: string): string | undefined {
  const fromRoom = roomOf(file.path) ?? ''
  const toRoom = roomOf(target)
  if (toRoom === undefined) return 'leaves core'
  const fromLayer = layerByRoom[fromRoom]
  const toLayer = layerByRoom[toRoom]
  if (fromLayer === undefined || toLayer === undefined) return 'is in a room that has no layer'
  const usesRealPlatform = target.startsWith('core/platform/node/')
  const isRealPlatform = file.path.startsWith('core/platform/node/')
  if (file.isTest && (toRoom === 'testing' || usesRealPlatform)) return undefined
  const isChosenHere = realPlatformUsers.includes(fromRoom) || realPlatformFiles.includes(file.path)
  if (usesRealPlatform && !isRealPlatform && !isChosenHere) {
    return 'must take the platform through its constructor, not from core/platform/node'
  }
  if (toRoom === fromRoom) return file.isTest ? undefined : complaintInRoom(file.path, target)
  if (strangers[fromRoom]?.includes(toRoom) === true) return `${fromRoom} and ${toRoom} share only messages`
  return toLayer < fromLayer ? undefined : `layer ${fromLayer} imports layer ${toLayer}`
}

function complaint(file: SourceFile, reference: ImportReference): string | undefined {
  const target = resolveRelative(file.path, reference.specifier)
  const top = file.path.split('/')[0]
  if (target !== undefined && !existsSync(resolve(rootDirectory, target))) return 'does not exist'
  if (top === 'core') {
    if (target !== undefined) return complaintInCore(file, target)
    return reference.specifier.startsWith('@cairn/')
      ? 'core imports no plugin, and itself by path'
      : undefined
  }
  if (top === 'plugins') {
    const home = file.path.split('/').slice(0, 2).join('/')
    if (target !== undefined) return target.startsWith(`${home}/`) ? undefined : 'leaves the plugin'
    if (!reference.specifier.startsWith('@cairn/')) return undefined
    return publicEntryPoints.includes(reference.specifier) ? undefined : 'is not a public entry point'
  }
  return undefined
}

function complaintsOf(files: SourceFile[]): { importCount: number; complaints: string[] } {
  let importCount = 0
  const complaints: string[] = []
  for (const file of files) {
    for (const reference of importsOf(file)) {
      importCount += 1
      const found = complaint(file, reference)
      if (found !== undefined) {
        complaints.push(`${file.path}:${reference.line}: '${reference.specifier}': ${found}`)
      }
    }
  }
  return { importCount, complaints }
}

test('a room imports only lower layers, and a plugin only the public entry points', () => {
  const { importCount, complaints } = complaintsOf(sourceFiles())
  assert.ok(importCount >= importCountFloor, `read only ${importCount} imports: is the reader broken?`)
  assert.deepEqual(complaints, [])
})

test('every file of core lies in a room that has a layer', () => {
  const homeless = sourceFiles()
    .map((file) => file.path)
    .filter((path) => path.startsWith('core/') && layerByRoom[roomOf(path) ?? ''] === undefined)
  assert.deepEqual(homeless, [])
})

test('the reader sees every form of a forbidden import', () => {
  const planted = (path: string, text: string) => complaintsOf([parseSource(path, text)]).complaints.length
  assert.equal(planted('core/base/planted.ts', `import { x } from '../kernel/index.ts'`), 1)
  assert.equal(planted('core/wire/planted.ts', `import type { x } from '../kernel/index.ts'`), 1)
  assert.equal(planted('core/wire/planted.ts', `export * from '../kernel/index.ts'`), 1)
  assert.equal(planted('core/wire/planted.ts', `await import('../kernel/index.ts')`), 1)
  assert.equal(planted('core/wire/planted.ts', `export type T = import('../kernel/index.ts').T`), 1)
  assert.equal(planted('core/metadata/planted.ts', `import '@cairn/fuse'`), 1)
  assert.equal(planted('core/client/chunk/planted.ts', `import { x } from '../file/files.ts'`), 1)
  assert.equal(planted('core/chunkserver/repair/planted.ts', `import { x } from '../chunk-server.ts'`), 1)
  assert.equal(planted('core/chunkserver/repair/planted.ts', `import { x } from '../format/errors.ts'`), 0)
  assert.equal(planted('core/metadata/control/servers/planted.ts', `import '../replication/joins.ts'`), 1)
  assert.equal(planted('plugins/fuse/planted.ts', `import '@cairn/core/kernel'`), 1)
  assert.equal(planted('plugins/fuse/planted.ts', `import '../../core/kernel/index.ts'`), 1)
  assert.equal(planted('plugins/fuse/planted.ts', `import '@cairn/core/plugin'`), 0)
})
