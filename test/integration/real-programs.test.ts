/**
 * Ordinary programs on the mount of a real cluster keep their data and agree with what they see on a local
 * disk. Issue: what ordinary software expects of a POSIX file system.
 */
import assert from 'node:assert/strict'
import fs from 'node:fs'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { must, TestCluster } from './support/cluster.ts'

const PROJECT = path.join(import.meta.dirname, '..', '..')

describe('real programs on the mount', { timeout: 340_000 }, () => {
  let cluster: TestCluster
  const ends: (() => Promise<void>)[] = []
  before(async () => {
    cluster = await TestCluster.start((end) => ends.push(end))
  })
  after(async () => {
    for (const end of ends.reverse()) await end()
  })

  it('cp -a of a tree with links and times is the same tree', async () => {
    const target = path.join(cluster.mount, 'tree')
    await must('cp', ['-a', '/usr/share/doc/.', target])
    await must('diff', ['-r', '--no-dereference', '/usr/share/doc', target])
    const original = await must('sh', [
      '-c',
      "cd /usr/share/doc && find . -printf '%P %y %m %u %g %s %Ts %l\\n' | grep -v ' d ' | sort",
    ])
    const copied = await must('sh', [
      '-c',
      `cd ${target} && find . -printf '%P %y %m %u %g %s %Ts %l\\n' | grep -v ' d ' | sort`,
    ])
    assert.equal(copied, original)
  })

  it('git commits and verifies a real tree', async () => {
    const repository = path.join(cluster.mount, 'repository')
    fs.mkdirSync(repository)
    await must('cp', ['-a', path.join(PROJECT, 'core'), path.join(PROJECT, 'docs'), repository])
    const git = (...parameters: string[]): Promise<string> =>
      must('git', ['-c', 'user.name=test', '-c', 'user.email=test@example.org', ...parameters], {
        cwd: repository,
      })
    await git('init', '-q')
    await git('add', '.')
    await git('commit', '-q', '-m', 'first')
    await git('fsck', '--full', '--strict')
    assert.equal(await git('status', '--porcelain'), '')
    await git('gc', '-q')
    await git('fsck', '--full', '--strict')
  })

  it('a SQLite database in WAL mode stays whole under parallel writers', async () => {
    const file = path.join(cluster.mount, 'test.db')
    await must('sqlite3', [file], {
      input: 'PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT);',
    })
    const script = Array.from(
      { length: 60 },
      () =>
        'BEGIN IMMEDIATE; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<50) INSERT INTO t(x) SELECT hex(randomblob(200)) FROM n; COMMIT;',
    ).join('\n')
    const writers = Array.from({ length: 3 }, () =>
      must('sqlite3', ['-cmd', '.timeout 60000', file], { input: script }),
    )
    await Promise.all(writers)
    assert.equal(
      (await must('sqlite3', [file, 'PRAGMA integrity_check; SELECT count(*) FROM t;'])).trim(),
      'ok\n9000',
    )
  })

  it('tar packs and unpacks, gcc builds and the program runs', async () => {
    const work = path.join(cluster.mount, 'build')
    fs.mkdirSync(work)
    await must('tar', ['-C', PROJECT, '-czf', path.join(work, 'core.tgz'), 'core'])
    await must('tar', ['-C', work, '-xzf', path.join(work, 'core.tgz')])
    await must('diff', ['-r', path.join(PROJECT, 'core'), path.join(work, 'core')])
    fs.writeFileSync(
      path.join(work, 'hello.c'),
      '#include <stdio.h>\nint main(void) { puts("hello from cairn"); return 0; }\n',
    )
    await must('gcc', ['-O2', '-o', path.join(work, 'hello'), path.join(work, 'hello.c')])
    assert.equal(await must(path.join(work, 'hello'), []), 'hello from cairn\n')
  })

  for (const [name, parameters] of [
    ['random 4 KiB', ['--rw=randwrite', '--bs=4k', '--iodepth=16', '--direct=1']],
    ['sequential 1 MiB', ['--rw=write', '--bs=1m', '--iodepth=4', '--direct=1']],
    [
      'mixed sizes, unaligned',
      ['--rw=randwrite', '--bsrange=512-70k', '--bs_unaligned=1', '--iodepth=8', '--direct=0'],
    ],
  ] as const) {
    it(`fio verifies what it wrote: ${name}`, async () => {
      await must('fio', [
        '--name=verify',
        `--filename=${path.join(cluster.mount, 'fio.dat')}`,
        '--size=96m',
        '--ioengine=libaio',
        '--verify=crc32c',
        '--verify_fatal=1',
        '--do_verify=1',
        '--end_fsync=1',
        ...parameters,
      ])
    })
  }

  it('a 20 GiB sparse file has its size, its holes and its data', async () => {
    const file = path.join(cluster.mount, 'sparse')
    const size = 20 * 1024 ** 3
    const descriptor = fs.openSync(file, 'w+')
    try {
      fs.ftruncateSync(descriptor, size)
      const marks = [0, 5 * 1024 ** 3 + 12_345, size - 7]
      for (const [index, offset] of marks.entries())
        fs.writeSync(descriptor, Buffer.from(`mark #${index}`), 0, 7, offset)
      fs.fsyncSync(descriptor)
      for (const [index, offset] of marks.entries()) {
        const seen = Buffer.alloc(7)
        fs.readSync(descriptor, seen, 0, 7, offset)
        assert.equal(seen.toString(), `mark #${index}`)
      }
      const hole = Buffer.alloc(1024 * 1024, 1)
      assert.equal(fs.readSync(descriptor, hole, 0, hole.length, 11 * 1024 ** 3), hole.length)
      assert.ok(hole.every((byte) => byte === 0))
    } finally {
      fs.closeSync(descriptor)
    }
    const status = fs.statSync(file)
    assert.equal(status.size, size)
    assert.ok(status.blocks * 512 <= 4 * 64 * 1024 ** 2, `${status.blocks} blocks`)
    fs.unlinkSync(file)
  })

  it('afterwards every replica verifies and all are equal', async () => {
    await cluster.allHealthy()
    await cluster.fsckClean()
  })
})
