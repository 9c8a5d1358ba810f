// Proves each rule of the namespace by script: every refusal with its code (and that it changed nothing),
// link counts, times, set-gid, listings under change, limits.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { stateDigest } from '../state/state.ts'
import { DIRECTORY_ENTRIES_MAX, EXTENDED_BYTES_MAX, LINK_COUNT_MAX } from './limits.ts'
import { NamespaceBench, type ShortCommand } from './namespace-bench.ts'
import { readDirectory, readLink, resolvePath } from './read.ts'

/** / with: dir/ dir/sub/ full/ full/x file link(->file) sym fifo */
function tree(): NamespaceBench {
  const bench = new NamespaceBench()
  bench.node('dir')
  bench.node('sub', bench.at('dir').inode)
  bench.node('full')
  bench.create('x', bench.at('full').inode)
  bench.create('file')
  bench.link(bench.at('file').inode, 'link')
  bench.run({ type: 'fs.symlink', parent: 1, name: 'sym', target: 'file', uid: 1, gid: 1 })
  bench.node('fifo', 1, 'fifo')
  return bench
}

/** Everything but the kept answers. */
function namespaceDigest(bench: NamespaceBench): string {
  return [bench.state.inodes, bench.state.entries]
    .flatMap((table) => [...table.rows()].map((row) => row.join('=')).toSorted())
    .join('\n')
}

const owner = { uid: 0, gid: 0, mode: 0o644 }
const create = (parent: number, name: string, exclusive = true): ShortCommand => ({
  type: 'fs.create',
  parent,
  name,
  ...owner,
  exclusive,
  lease: false,
})
const longName = 'é'.repeat(128)
const inodeOf = (path: string) => (bench: NamespaceBench) => bench.at(path).inode

type Script = [code: string, what: string, command: (bench: NamespaceBench) => ShortCommand]
const rename =
  (
    from: string,
    name: string,
    to: string,
    newName: string,
    mode: 'replace' | 'no-replace' | 'exchange' = 'replace',
  ) =>
  (bench: NamespaceBench): ShortCommand => ({
    type: 'fs.rename',
    parent: inodeOf(from)(bench),
    name,
    newParent: inodeOf(to)(bench),
    newName,
    mode,
  })
const scripts: Script[] = [
  ['EEXIST', 'create over a name', () => create(1, 'file')],
  ['EEXIST', 'create .', () => create(1, '.')],
  ['EEXIST', 'open-or-create a symlink', () => create(1, 'sym', false)],
  ['EISDIR', 'open-or-create a directory', () => create(1, 'dir', false)],
  ['ENOENT', 'create without a name', () => create(1, '')],
  ['EINVAL', 'create with a slash', () => create(1, 'a/b')],
  ['EINVAL', 'create with a zero byte', () => create(1, 'a\0b')],
  ['EINVAL', 'create with half a character', () => create(1, 'a\ud800')],
  ['ENAMETOOLONG', 'create 256 bytes', () => create(1, longName)],
  ['ENOTDIR', 'create in a file', (bench) => create(bench.at('file').inode, 'x')],
  ['ESTALE', 'create in nothing', () => create(999, 'x')],
  ['EINVAL', 'owner beyond 32 bits', () => ({ ...create(1, 'n'), uid: 2 ** 32 }) as ShortCommand],
  [
    'EINVAL',
    'mknod of a symlink',
    () => ({ type: 'fs.mknod', fileType: 'symlink', parent: 1, name: 'n', ...owner, device: 0 }),
  ],
  [
    'EEXIST',
    'mkdir over a name',
    () => ({ type: 'fs.mknod', fileType: 'directory', parent: 1, name: 'dir', ...owner, device: 0 }),
  ],
  [
    'ENOENT',
    'empty symlink',
    () => ({ type: 'fs.symlink', parent: 1, name: 'n', target: '', uid: 0, gid: 0 }),
  ],
  [
    'ENAMETOOLONG',
    'symlink of 4096 bytes',
    () => ({ type: 'fs.symlink', parent: 1, name: 'n', target: 'a'.repeat(4096), uid: 0, gid: 0 }),
  ],
  ['EPERM', 'link a directory', (b) => ({ type: 'fs.link', inode: b.at('dir').inode, parent: 1, name: 'n' })],
  [
    'EEXIST',
    'link over a name',
    (b) => ({ type: 'fs.link', inode: b.at('file').inode, parent: 1, name: 'sym' }),
  ],
  ['ESTALE', 'link nothing', () => ({ type: 'fs.link', inode: 999, parent: 1, name: 'n' })],
  ['ENOENT', 'unlink nothing', () => ({ type: 'fs.unlink', parent: 1, name: 'nothing' })],
  ['EISDIR', 'unlink a directory', () => ({ type: 'fs.unlink', parent: 1, name: 'dir' })],
  ['EISDIR', 'unlink ..', () => ({ type: 'fs.unlink', parent: 1, name: '..' })],
  ['ENOTDIR', 'unlink in a file', (b) => ({ type: 'fs.unlink', parent: b.at('file').inode, name: 'n' })],
  ['ENOTEMPTY', 'rmdir a full directory', () => ({ type: 'fs.rmdir', parent: 1, name: 'full' })],
  ['ENOTDIR', 'rmdir a file', () => ({ type: 'fs.rmdir', parent: 1, name: 'file' })],
  ['ENOENT', 'rmdir nothing', () => ({ type: 'fs.rmdir', parent: 1, name: 'nothing' })],
  ['EINVAL', 'rmdir .', () => ({ type: 'fs.rmdir', parent: 1, name: '.' })],
  ['ENOTEMPTY', 'rmdir ..', () => ({ type: 'fs.rmdir', parent: 1, name: '..' })],
  ['ENOENT', 'rename nothing', rename('/', 'nothing', '/', 'n')],
  ['EEXIST', 'rename without replacing', rename('/', 'file', '/', 'sym', 'no-replace')],
  ['EEXIST', 'rename onto itself without replacing', rename('/', 'file', '/', 'file', 'no-replace')],
  ['ENOENT', 'exchange with nothing', rename('/', 'file', '/', 'nothing', 'exchange')],
  ['EINVAL', 'rename .', rename('/', '.', '/', 'n')],
  ['EINVAL', 'rename to ..', rename('/', 'file', '/', '..')],
  ['ENAMETOOLONG', 'rename to 256 bytes', rename('/', 'file', '/', longName)],
  ['EINVAL', 'directory below itself', rename('/', 'dir', '/dir', 'n')],
  ['EINVAL', 'directory far below itself', rename('/', 'dir', '/dir/sub', 'n')],
  ['EINVAL', 'exchange with an ancestor', rename('/dir', 'sub', '/', 'dir', 'exchange')],
  ['EINVAL', 'exchange with a descendant', rename('/', 'dir', '/dir', 'sub', 'exchange')],
  ['ENOTEMPTY', 'replace an ancestor', rename('/dir', 'sub', '/', 'dir')],
  ['ENOTEMPTY', 'replace a full directory', rename('/', 'dir', '/', 'full')],
  ['ENOTDIR', 'directory over a file', rename('/', 'dir', '/', 'file')],
  ['EISDIR', 'file over a directory', rename('/', 'file', '/', 'dir')],
  ['ENOTDIR', 'rename into a file', rename('/', 'sym', '/file', 'n')],
  ['ESTALE', 'setattr of nothing', () => ({ type: 'fs.setattr', inode: 999, mode: 0 })],
  ['EINVAL', 'setattr beyond 32 bits', () => ({ type: 'fs.setattr', inode: 1, gid: 2 ** 32 })],
  [
    'EINVAL',
    'setattr of a full second of nanoseconds',
    () => ({ type: 'fs.setattr', inode: 1, modifySeconds: 1, modifyNanoseconds: 1e9 }),
  ],
  ['ENODATA', 'removexattr of nothing', () => ({ type: 'fs.removexattr', inode: 1, name: 'user.a' })],
  [
    'ENODATA',
    'replace no xattr',
    () => ({ type: 'fs.setxattr', inode: 1, name: 'user.a', value: Buffer.alloc(1), mode: 'replace' }),
  ],
  [
    'E2BIG',
    'xattrs beyond their limit',
    () => ({
      type: 'fs.setxattr',
      inode: 1,
      name: 'u',
      value: Buffer.alloc(EXTENDED_BYTES_MAX),
      mode: 'set',
    }),
  ],
  [
    'ENAMETOOLONG',
    'long xattr name',
    () => ({ type: 'fs.setxattr', inode: 1, name: 'u'.repeat(256), value: Buffer.alloc(0), mode: 'set' }),
  ],
  [
    'EINVAL',
    'minimum above norm',
    () => ({
      type: 'attr.set',
      inode: 1,
      recursive: false,
      attributes: { replicasNormal: 2, replicasMinimum: 3 },
    }),
  ],
  [
    'EINVAL',
    'minimum above the norm below',
    () => ({ type: 'attr.set', inode: 1, recursive: true, attributes: { replicasMinimum: 2 } }),
  ],
]

describe('a refused command has its code and changes nothing', () => {
  for (const [code, what, command] of scripts) {
    test(`${code}: ${what}`, () => {
      const bench = tree()
      const before = namespaceDigest(bench)
      const result = bench.run(command(bench))
      assert.ok('error' in result, `must be refused, got ${JSON.stringify(result)}`)
      assert.equal(result.error, code)
      assert.equal(namespaceDigest(bench), before)
    })
  }

  test('EMLINK: one name more than a file may have', () => {
    const bench = tree()
    bench.at('file').links = LINK_COUNT_MAX
    const result = bench.link(bench.at('file').inode, 'n')
    assert.ok('error' in result && result.error === 'EMLINK')
  })

  test('ENOENT: a removed directory and a removed file get no new names', () => {
    const bench = tree()
    const directory = bench.at('dir/sub').inode
    bench.rmdir('sub', bench.at('dir').inode)
    const made = bench.create('n', directory)
    assert.ok('error' in made && made.error === 'ENOENT')
    const file = bench.at('full/x').inode
    bench.unlink('x', bench.at('full').inode)
    const linked = bench.link(file, 'n')
    assert.ok('error' in linked && linked.error === 'ENOENT')
  })

  test('a directory has room below what a map can hold', () => {
    assert.ok(DIRECTORY_ENTRIES_MAX < 2 ** 24)
  })
})

describe('links, orphans and collection', () => {
  test('the last unlink makes an orphan that lives until it is collected', () => {
    const bench = tree()
    const { inode } = bench.at('file')
    bench.mapChunks(inode, [0, 3])
    assert.deepEqual(bench.unlink('file'), { ok: { inode, links: 1 } })
    assert.deepEqual(bench.apply({ type: 'file.collect', inodes: [inode] }), { ok: { collected: [] } })
    assert.deepEqual(bench.unlink('link'), { ok: { inode, links: 0 } })
    assert.ok(bench.state.orphans.has(inode))
    assert.equal(bench.row(inode).links, 0)
    assert.deepEqual(bench.apply({ type: 'file.collect', inodes: [inode] }), { ok: { collected: [inode] } })
    assert.deepEqual(
      bench.dropped.toSorted((a, b) => a - b),
      [1, 2],
    )
    assert.equal(bench.state.inodes.has(inode), false)
    assert.equal(bench.state.orphans.size, 0)
  })

  test('an orphan with a lease stays (rule T2)', () => {
    const bench = tree()
    const made = bench.run({ ...create(1, 'held'), lease: true } as ShortCommand)
    assert.ok('ok' in made)
    const { inode } = bench.at('held')
    bench.unlink('held')
    assert.deepEqual(bench.apply({ type: 'file.collect', inodes: [inode] }), { ok: { collected: [] } })
    assert.ok(bench.state.inodes.has(inode))
  })

  test('link counts of directories follow their subdirectories', () => {
    const bench = tree()
    assert.deepEqual([bench.at('/').links, bench.at('dir').links, bench.at('full').links], [4, 3, 2])
    bench.rename('sub', 'moved', { parent: bench.at('dir').inode, newParent: bench.at('full').inode })
    assert.deepEqual([bench.at('/').links, bench.at('dir').links, bench.at('full').links], [4, 2, 3])
    assert.equal(bench.at('full/moved').parent, bench.at('full').inode)
    bench.rename('dir', 'moved', { newParent: bench.at('full').inode })
    assert.deepEqual([bench.at('/').links, bench.at('full').links], [3, 3])
    bench.rename('moved', 'fifo', { parent: bench.at('full').inode, mode: 'exchange' })
    assert.deepEqual([bench.at('/').links, bench.at('full').links, bench.at('fifo').parent], [4, 2, 1])
  })

  test('rename between two names of one file does nothing', () => {
    const bench = tree()
    const before = namespaceDigest(bench)
    assert.deepEqual(bench.rename('file', 'link'), { ok: { inode: bench.at('file').inode } })
    assert.equal(namespaceDigest(bench), before)
  })

  test('rename over a file says what lost its name', () => {
    const bench = tree()
    const [file, symlink] = [bench.at('file').inode, bench.at('sym').inode]
    assert.deepEqual(bench.rename('file', 'sym'), { ok: { inode: file, replaced: symlink } })
    assert.ok(bench.state.orphans.has(symlink))
    assert.equal(bench.at('sym').inode, file)
  })
})

describe('attributes', () => {
  const times = (bench: NamespaceBench, path: string) => {
    const row = bench.at(path)
    return [row.accessSeconds, row.modifySeconds, row.changeSeconds]
  }

  test('each command moves the times it must and no other', () => {
    const bench = new NamespaceBench()
    bench.node('d') // 1001
    bench.create('f', bench.at('d').inode) // 1002
    assert.deepEqual(times(bench, 'd'), [1001, 1002, 1002])
    assert.deepEqual(times(bench, 'd/f'), [1002, 1002, 1002])
    bench.link(bench.at('d/f').inode, 'g') // 1003
    assert.deepEqual(times(bench, 'd/f'), [1002, 1002, 1003])
    assert.deepEqual(times(bench, '/').slice(1), [1003, 1003])
    bench.rename('g', 'h') // 1004
    assert.deepEqual(times(bench, 'h'), [1002, 1002, 1004])
    bench.run({ type: 'fs.setattr', inode: bench.at('h').inode, mode: 0o600 }) // 1005
    assert.deepEqual(times(bench, 'h'), [1002, 1002, 1005])
    bench.run({ type: 'fs.setattr', inode: bench.at('h').inode, accessSeconds: -5, modifyNow: true }) // 1006
    assert.deepEqual(times(bench, 'h'), [-5, 1006, 1006])
    assert.equal(bench.at('h').modifyNanoseconds, 123_456_789)
    bench.unlink('h') // 1007
    assert.deepEqual(times(bench, 'd/f'), [-5, 1006, 1007])
    assert.deepEqual(times(bench, '/').slice(1), [1007, 1007])
  })

  test('a set-gid directory gives its group, and the bit to directories', () => {
    const bench = new NamespaceBench()
    bench.node('d', 1, 'directory', 0o2775)
    const { inode } = bench.at('d')
    bench.run({ type: 'fs.setattr', inode, gid: 77 })
    assert.equal(bench.at('d').mode, 0o2775, 'a directory keeps its bits when its group changes')
    bench.create('f', inode)
    bench.node('e', inode)
    assert.deepEqual([bench.at('d/f').gid, bench.at('d/f').mode], [77, 0o644])
    assert.deepEqual([bench.at('d/e').gid, bench.at('d/e').mode], [77, 0o2755])
  })

  test('a new owner takes the set-id bits off a file', () => {
    const bench = tree()
    const { inode } = bench.at('file')
    bench.run({ type: 'fs.setattr', inode, mode: 0o6755 })
    bench.run({ type: 'fs.setattr', inode, uid: 5 })
    assert.equal(bench.row(inode).mode, 0o755)
    bench.run({ type: 'fs.setattr', inode, mode: 0o2745 })
    bench.run({ type: 'fs.setattr', inode, gid: 5 })
    assert.equal(bench.row(inode).mode, 0o2745, 'mandatory locking is not set-gid')
    bench.run({ type: 'fs.setattr', inode, uid: 6, mode: 0o4700 })
    assert.equal(bench.row(inode).mode, 0o4700)
  })

  test('extended attributes: set, modes, names that objects have, sum', () => {
    const bench = tree()
    const { inode } = bench.at('file')
    const set = (name: string, bytes: number, mode: 'set' | 'create' = 'set') =>
      bench.run({ type: 'fs.setxattr', inode, name, value: Buffer.alloc(bytes, 7), mode })
    assert.deepEqual(set('__proto__', 3, 'create'), { ok: {} })
    const again = set('__proto__', 3, 'create')
    assert.ok('error' in again && again.error === 'EEXIST')
    assert.deepEqual(set('user.big', EXTENDED_BYTES_MAX - 9 - 3 - 8), { ok: {} })
    const tooMuch = set('u', 0)
    assert.ok('error' in tooMuch && tooMuch.error === 'E2BIG')
    assert.deepEqual(bench.run({ type: 'fs.removexattr', inode, name: 'user.big' }), { ok: {} })
    assert.deepEqual(Object.keys(bench.row(inode).extended ?? {}), ['__proto__'])
  })

  test('placement: inherited at creation, set below on demand, minimum by default', () => {
    const bench = tree()
    bench.run({ type: 'attr.set', inode: 1, recursive: false, attributes: { replicasNormal: 3 } })
    assert.deepEqual(bench.at('/').placement, { replicasNormal: 3, replicasMinimum: 2 })
    assert.equal(bench.at('dir').placement, undefined)
    bench.create('later')
    assert.deepEqual(bench.at('later').placement, { replicasNormal: 3, replicasMinimum: 2 })
    const changed = bench.run({
      type: 'attr.set',
      inode: 1,
      recursive: true,
      attributes: { replicasNormal: 2 },
    })
    // root, dir, sub, full, x, file (two names), sym, fifo, later
    assert.deepEqual(changed, { ok: { changed: 9 } })
    assert.deepEqual(bench.at('dir/sub').placement, { replicasNormal: 2, replicasMinimum: 1 })
    bench.run({ type: 'attr.set', inode: 1, recursive: false, attributes: { failureDomain: 'disk' } })
    assert.deepEqual(bench.at('/').placement, {
      replicasNormal: 2,
      replicasMinimum: 1,
      failureDomain: 'disk',
    })
  })
})

describe('reading', () => {
  test('a listing in small steps under change shows every lasting name once', () => {
    const bench = new NamespaceBench()
    const lasting = Array.from({ length: 100 }, (_, count) => `lasting${count}`)
    for (const name of lasting) {
      bench.create(`gone-${name}`)
      bench.create(name)
    }
    const seen: string[] = []
    let cookie = 0
    for (let step = 0; ; step++) {
      const result = readDirectory(bench.state, { inode: 1, cookie, limit: 3, plus: false })
      assert.ok('ok' in result)
      seen.push(...result.ok.entries.map((entry) => entry.name))
      if (result.ok.end) break
      cookie = result.ok.entries.at(-1)?.cookie ?? 0
      // Behind, before and at the place of the listing.
      if (step < 60) bench.unlink(`gone-lasting${step}`)
      if (step < 60) bench.unlink(`gone-lasting${99 - step}`)
      if (step < 20) bench.create(`new${step}`)
    }
    assert.deepEqual(
      seen.filter((name) => name.startsWith('lasting')),
      lasting,
    )
    assert.equal(new Set(seen).size, seen.length)
  })

  test('cookies are not used twice, and the order survives a restart', () => {
    const bench = new NamespaceBench()
    bench.create('a')
    bench.create('b')
    const cookie = bench.state.entries.entry(1, 'b')?.cookie ?? 0
    bench.unlink('b')
    const copy = bench.reloaded()
    copy.create('c')
    const listed = readDirectory(copy.state, { inode: 1, cookie, limit: 10, plus: true })
    assert.ok('ok' in listed)
    assert.deepEqual(
      listed.ok.entries.map((entry) => entry.name),
      ['c'],
    )
    const all = readDirectory(copy.state, { inode: 1, cookie: 0, limit: 10, plus: false })
    assert.ok('ok' in all)
    assert.deepEqual(
      all.ok.entries.map((entry) => entry.name),
      ['a', 'c'],
    )
  })

  test('paths', () => {
    const bench = tree()
    const codeOf = (path: string) => {
      const row = resolvePath(bench.state, path)
      return 'error' in row ? row.error : row.inode
    }
    assert.equal(codeOf('/'), 1)
    assert.equal(codeOf('//dir/./sub/../sub/'), bench.at('dir/sub').inode)
    assert.equal(codeOf('/../file'), bench.at('file').inode)
    assert.equal(codeOf('file'), 'EINVAL')
    assert.equal(codeOf('/file/'), 'ENOTDIR')
    assert.equal(codeOf('/sym/x'), 'ENOTDIR')
    assert.equal(codeOf('/dir/nothing'), 'ENOENT')
    assert.equal(codeOf(`/${longName}`), 'ENAMETOOLONG')
    assert.equal(codeOf(`/${'a/'.repeat(3000)}`), 'ENAMETOOLONG')
    assert.deepEqual(readLink(bench.state, bench.at('sym').inode), { ok: { target: 'file' } })
    assert.equal(bench.at('sym').size, 4)
  })

  test('the same tree has the same digest', () => {
    assert.equal(stateDigest(tree().state), stateDigest(tree().state))
  })
})
