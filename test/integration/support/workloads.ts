/**
 * What ordinary programs do with a file system, each in a directory of its own: it writes, reads back with
 * the same or another program, and rejects on any error or difference. `real-programs.test.ts` runs them on
 * a healthy cluster, `lost-processes.test.ts` with a chunk server killed in the middle.
 */
import assert from 'node:assert/strict'
import fs from 'node:fs'
import path from 'node:path'
import { must } from './cluster.ts'

const PROJECT = path.join(import.meta.dirname, '..', '..', '..')
/** Some 200 files in several directories. */
const SOURCE_TREE = path.join(PROJECT, 'core', 'metadata')
/** Some 60: a round of it ends soon. */
const SMALL_TREE = path.join(PROJECT, 'core', 'client')

export interface Workload {
  readonly name: string
  /** `directory` is empty, on the mount. */
  run(directory: string): Promise<void>
}

/** A tree of a few hundred files with links of both kinds, odd modes, owners and names, and times of all ages. */
export async function makeTree(directory: string): Promise<void> {
  await must('cp', ['-a', `${SOURCE_TREE}/.`, directory])
  const found = await must('find', ['.', '-type', 'f'], { cwd: directory })
  const modes = [0o444, 0o4755, 0o2640, 0o600]
  for (const [index, name] of found.trim().split('\n').sort().entries()) {
    const file = path.join(directory, name)
    if (index % 7 === 0) fs.symlinkSync(path.basename(name), `${file}.symbolic`)
    if (index % 9 === 0) fs.linkSync(file, path.join(directory, `hard link ${index}`))
    if (index % 5 === 0) fs.chownSync(file, index, 2 * index)
    if (index % 3 === 0) fs.chmodSync(file, modes[index % modes.length] ?? 0)
    fs.utimesSync(file, index * 1_000_000, index * 8_000_000 + 0.123)
  }
  fs.symlinkSync('/nowhere', path.join(directory, 'dangling'))
  fs.symlinkSync('.', path.join(directory, 'itself'))
  const deep = path.join(directory, ...Array.from({ length: 12 }, (_, depth) => `${'ä'.repeat(60)} ${depth}`))
  fs.mkdirSync(deep, { recursive: true })
  fs.writeFileSync(path.join(deep, 'n'.repeat(255)), '')
}

/** Copies a tree with cp -a; contents, names, types, modes, owners, times and links of both kinds must be equal. */
export async function copyTree(source: string, target: string): Promise<void> {
  await must('cp', ['-a', `${source}/.`, target])
  await must('diff', ['-r', '--no-dereference', source, target])
  const facts = (directory: string): Promise<string> =>
    must('sh', ['-c', `find . ! -type d -printf '%P %y %m %n %U %G %s %T@ %l\\n' | sort`], { cwd: directory })
  assert.equal(await facts(target), await facts(source))
}

export async function gitHistory(directory: string, source = SOURCE_TREE): Promise<void> {
  await must('cp', ['-a', source, directory])
  const git = (...parameters: string[]): Promise<string> =>
    must('git', ['-c', 'user.name=test', '-c', 'user.email=test@example.org', ...parameters], {
      cwd: directory,
    })
  await git('init', '-q')
  await git('add', '.')
  await git('commit', '-q', '-m', 'first')
  await git('fsck', '--full', '--strict')
  assert.equal(await git('status', '--porcelain'), '')
  await git('gc', '-q')
  await git('fsck', '--full', '--strict')
}

/** Writers in parallel on one database in WAL mode, which needs locks and a shared memory map. */
export async function sqliteWriters(directory: string, transactions: number): Promise<void> {
  const file = path.join(directory, 'test.db')
  const writers = 3
  const rows = 50
  await must('sqlite3', [file], {
    input: 'PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT);',
  })
  const script = Array.from(
    { length: transactions },
    () =>
      `BEGIN IMMEDIATE; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<${rows}) INSERT INTO t(x) SELECT hex(randomblob(200)) FROM n; COMMIT;`,
  ).join('\n')
  await Promise.all(
    Array.from({ length: writers }, () =>
      must('sqlite3', ['-bail', '-cmd', '.timeout 60000', file], { input: script }),
    ),
  )
  const verdict = await must('sqlite3', [file, 'PRAGMA integrity_check; SELECT count(*) FROM t;'])
  assert.equal(verdict.trim(), `ok\n${writers * transactions * rows}`)
}

export async function packAndUnpack(directory: string, source = SOURCE_TREE): Promise<void> {
  const archive = path.join(directory, 'tree.tgz')
  const name = path.basename(source)
  await must('tar', ['-C', path.dirname(source), '-czf', archive, name])
  await must('tar', ['-C', directory, '-xzf', archive])
  await must('diff', ['-r', source, path.join(directory, name)])
}

/** A program of several objects and a library, as make would build it; it is linked, run and debugged here. */
export async function compileProgram(directory: string): Promise<void> {
  const parts = 6
  const sources = Array.from({ length: parts }, (_, part) => `part${part}.c`)
  for (const [part, source] of sources.entries()) {
    fs.writeFileSync(
      path.join(directory, source),
      `#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\nint part${part}(int x) { return x + ${part}; }\n`,
    )
  }
  const calls = sources.map((_, part) => `part${part}(0)`).join(' + ')
  const declarations = sources.map((_, part) => `int part${part}(int);`).join(' ')
  fs.writeFileSync(
    path.join(directory, 'main.c'),
    `#include <stdio.h>\n${declarations}\nint main(void) { printf("%d\\n", ${calls}); return 0; }\n`,
  )
  const run = (command: string, ...parameters: string[]): Promise<string> =>
    must(command, parameters, { cwd: directory })
  for (const source of sources) await run('gcc', '-g', '-O2', '-c', source)
  await run('ar', 'rcs', 'libparts.a', ...sources.map((source) => source.replace('.c', '.o')))
  await run('gcc', '-g', '-O2', '-o', 'program', 'main.c', 'libparts.a')
  assert.equal(await run('./program'), '15\n')
}

/** fio writes with a checksum in every block and verifies all of them afterwards. */
export async function fioVerify(
  directory: string,
  sizeMib: number,
  parameters: readonly string[],
): Promise<void> {
  await must('fio', [
    '--name=verify',
    `--filename=${path.join(directory, 'fio.dat')}`,
    `--size=${sizeMib}m`,
    '--ioengine=libaio',
    '--verify=crc32c',
    '--verify_fatal=1',
    '--verify_state_save=0',
    '--do_verify=1',
    '--end_fsync=1',
    ...parameters,
  ])
}

export const fioPatterns: readonly (readonly [string, readonly string[]])[] = [
  ['random 4 KiB', ['--rw=randwrite', '--bs=4k', '--iodepth=16', '--direct=1']],
  ['sequential 1 MiB', ['--rw=write', '--bs=1m', '--iodepth=4', '--direct=1']],
  [
    'mixed sizes, unaligned',
    ['--rw=randwrite', '--bsrange=512-70k', '--bs_unaligned=1', '--iodepth=8', '--direct=0'],
  ],
]

/** Small files in several directories; every one is read back, listed and its size checked. */
export async function manyFiles(directory: string): Promise<void> {
  const directories = 8
  const filesEach = 25
  const nameOf = (where: number, file: number): string => path.join(directory, `d${where}`, `file-${file}`)
  const contentOf = (where: number, file: number): string => `${where}/${file} `.repeat(1 + (file % 40))
  await Promise.all(
    Array.from({ length: directories }, async (_, where) => {
      await fs.promises.mkdir(path.join(directory, `d${where}`))
      for (let file = 0; file < filesEach; file++)
        await fs.promises.writeFile(nameOf(where, file), contentOf(where, file))
    }),
  )
  await Promise.all(
    Array.from({ length: directories }, async (_, where) => {
      assert.equal((await fs.promises.readdir(path.join(directory, `d${where}`))).length, filesEach)
      for (let file = 0; file < filesEach; file++) {
        assert.equal(await fs.promises.readFile(nameOf(where, file), 'utf8'), contentOf(where, file))
      }
    }),
  )
}

/** Small enough to be repeated while servers come and go. */
export const workloads: readonly Workload[] = [
  { name: 'cp -a', run: (directory) => copyTree(SMALL_TREE, directory) },
  { name: 'git', run: (directory) => gitHistory(directory, SMALL_TREE) },
  { name: 'SQLite', run: (directory) => sqliteWriters(directory, 15) },
  { name: 'tar', run: (directory) => packAndUnpack(directory, SMALL_TREE) },
  { name: 'gcc', run: compileProgram },
  ...fioPatterns.map(([name, parameters]) => ({
    name: `fio, ${name}`,
    run: (directory: string) => fioVerify(directory, 24, parameters),
  })),
  { name: 'many files', run: manyFiles },
]

export interface Repetition {
  /** Lets the present round end; rejects with the first error of any round. */
  stop(): Promise<void>
  /** Rounds that ended. */
  readonly rounds: number
}

/** Runs a workload again and again until stopped, so that something is always in its middle. */
export function repeat(workload: Workload, directory: string): Repetition {
  let stopping = false
  let rounds = 0
  const running = (async () => {
    while (!stopping) {
      const place = path.join(directory, `round-${rounds}`)
      fs.mkdirSync(place)
      await workload.run(place)
      fs.rmSync(place, { recursive: true })
      rounds += 1
    }
  })()
  // Reported by `stop`, however long it takes until that is called.
  running.catch(() => undefined)
  return {
    async stop() {
      stopping = true
      await running
    },
    get rounds() {
      return rounds
    },
  }
}
