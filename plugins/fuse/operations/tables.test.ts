/** When cached pages may live on, who is told of changes, and how options are read. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CairnError } from '@cairn/core/plugin'
import { InodeTable } from './inode-table.ts'
import { OpenFiles } from './open-files.ts'
import { parseMountOptions, parseSource } from '../options.ts'
import { parseMountInfo } from '../mount/system-mount.ts'
import { MemoryClient } from '../testing/memory-client.ts'
import type { Attributes } from '../protocol/types.ts'

async function openedFile() {
  const { fileSystem } = new MemoryClient()
  const { file, attributes } = await fileSystem.create(1, 'f', 0o644, { uid: 0, gid: 0 }, true)
  const inodes = new InodeTable()
  inodes.told(attributes, true)
  const known = inodes.get(attributes.inode)
  assert.ok(known)
  return { file, attributes, known, inodes, files: new OpenFiles() }
}

const changed = (attributes: Attributes, change: Partial<Attributes>): Attributes => ({
  ...attributes,
  ...change,
})

test('pages are kept only when contents are as at the last close', async () => {
  const { file, attributes, known, files } = await openedFile()
  assert.equal(files.open(file, attributes, known).keepCache, false, 'never seen before')
  known.pages = attributes
  const other = new OpenFiles()
  assert.equal(other.open(file, attributes, known).keepCache, true)
  for (const change of [{ generation: 5 }, { size: 9 }, { modifyNanoseconds: 1 }]) {
    known.pages = attributes
    assert.equal(new OpenFiles().open(file, changed(attributes, change), known).keepCache, false)
    assert.equal(known.pages, undefined)
  }
})

test('after own writes pages are trusted unless another lease may have come between', async () => {
  const { file, attributes, known, files } = await openedFile()
  const { handle } = files.open(file, attributes, known)
  const state = files.file(handle)?.state
  assert.ok(state)
  assert.equal(state.pagesMatch(changed(attributes, { size: 5 })), false, 'changed, but not by us')
  state.written = true
  const { generation } = attributes
  assert.equal(state.pagesMatch(changed(attributes, { size: 5, generation: generation + 1 })), true)
  assert.equal(state.pagesMatch(changed(attributes, { size: 5, generation: generation + 2 })), false)
  state.invalidated = true
  assert.equal(state.pagesMatch(changed(attributes, { size: 5, generation: generation + 1 })), false)
})

test('forgotten inodes are gone; above the limit everything counts as cached', () => {
  const base = { mode: 0o2755, gid: 50 } as Attributes
  const inodes = new InodeTable(2)
  inodes.told({ ...base, inode: 1 }, true)
  inodes.told({ ...base, inode: 1 }, true)
  inodes.told({ ...base, inode: 2, mode: 0o755 }, true)
  assert.deepEqual(inodes.inheritedGroup(1), { group: 50 })
  assert.deepEqual(inodes.inheritedGroup(2), { group: null })
  assert.equal(inodes.inheritedGroup(3), undefined)
  inodes.forget(1, 1)
  assert.equal(inodes.mayBeCached(1), true)
  inodes.forget(1, 1)
  assert.equal(inodes.mayBeCached(1), false)
  inodes.told({ ...base, inode: 3 }, true)
  inodes.told({ ...base, inode: 4 }, true)
  assert.equal(inodes.size, 2)
  assert.equal(inodes.mayBeCached(4), true)
})

test('options of fstab and of the command line', () => {
  const settings = parseMountOptions([
    'rw,nosuid,nodev,_netdev,allow_other,x-systemd.automount',
    'hold_timeout=30',
  ])
  assert.deepEqual(settings.flags, ['rw', 'nosuid', 'nodev'])
  assert.equal(settings.holdTimeoutMs, 30_000)
  assert.equal(settings.preferredServer, 0)
  assert.equal(parseMountOptions(['prefer_cs=1025']).preferredServer, 1025)
  assert.equal(settings.readOnly, false)
  assert.equal(parseMountOptions(['rw,ro']).readOnly, true)
  assert.equal(parseMountOptions(['attr_timeout=0.5']).attributesTimeoutMs, 500)
  for (const wrong of [
    'frobnicate',
    'hold_timeout',
    'hold_timeout=-1',
    'hold_timeout=1e3',
    'prefer_cs',
    'prefer_cs=CS#1025',
    'fd=7',
    'nosuid=1',
  ]) {
    assert.throws(
      () => parseMountOptions([wrong]),
      (error) => error instanceof CairnError && error.code === 'USAGE',
    )
  }
})

test('sources name a cluster', () => {
  assert.equal(parseSource('cairn://demo'), 'demo')
  assert.equal(parseSource('cairn://demo/'), 'demo')
  assert.equal(parseSource('demo_1-x'), 'demo_1-x')
  for (const wrong of ['', 'cairn://', 'cairn://a/b', 'a b', '-o ro;x']) {
    assert.throws(() => parseSource(wrong))
  }
})

test('mountinfo with blanks in directories', () => {
  const text =
    '30 1 0:44 / /mnt/a\\040b rw,relatime shared:1 - fuse.cairn cairn://x rw\nbroken line\n31 1 8:1 / / rw - ext4 /dev/sda1 rw\n'
  assert.deepEqual(parseMountInfo(text), [
    {
      device: '0:44',
      directory: '/mnt/a b',
      escapedDirectory: '/mnt/a\\040b',
      type: 'fuse.cairn',
      source: 'cairn://x',
    },
    { device: '8:1', directory: '/', escapedDirectory: '/', type: 'ext4', source: '/dev/sda1' },
  ])
})
