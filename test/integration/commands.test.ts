/**
 * Every command of the command line, for real: what it does, its exit status, its one JSON document, and the
 * next step it names when it refuses. Contract: docs/cli.md; guide: Command Line Reference.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { pagePosition } from '../../core/chunkserver/format/chunk-layout.ts'
import type { FsckResult } from '../../core/cli/fsck.ts'
import type { UpStatus } from '../../core/node/up/control.ts'
import {
  CAIRN,
  isAlive,
  isMounted,
  metadataServerCount,
  must,
  runProgram,
  TestCluster,
  until,
} from './support/cluster.ts'

const HELPER = '/sbin/mount.fuse.cairn'
const HELPER_SOURCE = path.join(import.meta.dirname, '..', '..', 'plugins', 'fuse', 'mount.fuse.cairn')

describe('commands on a running cluster', { timeout: 450_000 }, () => {
  let cluster: TestCluster
  let second: string
  const ends: (() => Promise<void>)[] = []
  before(async () => {
    cluster = await TestCluster.start((end) => ends.push(end))
    second = path.join(cluster.directory, 'second mount')
    fs.mkdirSync(second)
    ends.push(async () => {
      await runProgram('umount', ['-l', second])
    })
    fs.mkdirSync(path.join(cluster.mount, 'directory'))
    fs.writeFileSync(path.join(cluster.mount, 'directory', 'file'), 'contents')
  })
  after(async () => {
    for (const end of ends.reverse()) await end()
  })

  const json = async (...parameters: string[]): Promise<Record<string, unknown>> =>
    JSON.parse(await cluster.cairn(...parameters, '--json')) as Record<string, unknown>

  it('every reading command prints one JSON document with its stable keys', async () => {
    const file = path.join(cluster.mount, 'directory', 'file')
    for (const [parameters, keys] of [
      [
        ['stat'],
        ['cluster', 'uuid', 'status', 'space', 'mds', 'cs', 'clients', 'chunks', 'replication', 'fs', 'io'],
      ],
      [['list-services'], ['services']],
      [['get-event'], ['events']],
      [['get-config'], ['values']],
      [['get-config', 'mds.wd.offline_tout'], ['values']],
      [
        ['get-attr', file],
        ['path', 'own', 'effective'],
      ],
      [
        ['get-attr', '-p', '/directory/file'],
        ['path', 'own', 'effective'],
      ],
      [['fsck'], ['chunks', 'replicas', 'pages', 'problemCount', 'problems']],
      [['promote-replica'], ['chunks', 'total']],
      [
        ['mds', 'recover', '--dry-run'],
        ['isWaiting', 'generation', 'keepsUnknown'],
      ],
      [['plugin', 'list'], ['processes']],
      [
        ['status', '--dir', cluster.directory],
        ['cluster', 'phase', 'pid', 'processes', 'endpoints'],
      ],
      [
        ['shutdown', '--dry-run', '-f'],
        ['stopping', 'dryRun'],
      ],
    ] as const) {
      const document = await json(...parameters)
      for (const key of keys) assert.ok(key in document, `${parameters.join(' ')}: no ${key}`)
    }
  })

  it('people read tables: servers, space, events, parameters', async () => {
    const stat = await cluster.cairn('stat')
    assert.match(stat, /^Cluster 'demo': healthy$/m)
    assert.match(stat, /^CS nodes: {2}3 of 3 \(3 avail, 0 inactive, 0 offline\)$/m)
    assert.match(stat, /^Space: \[\w+\] allocatable \S+ of \S+, free \S+ of \S+$/m)
    assert.match(await cluster.cairn('list-services', '-C'), /^CS +\d+ +active +127\.0\.0\.1:\d+/m)
    assert.doesNotMatch(await cluster.cairn('list-services', '-M'), /^CS /m)
    assert.match(await cluster.cairn('get-event'), /The cluster is healthy with 3 active CS/)
    assert.match(await cluster.cairn('get-config'), /^mds\.wd\.offline_tout +5min$/m)
    assert.match(await cluster.cairn('status', '--dir', cluster.directory), /^mds1 +running +\d+/m)
  })

  it('what cannot be is said with its exit status and the next step', async () => {
    const nowhere = path.join(cluster.directory, 'nowhere')
    const cases: readonly (readonly [readonly string[], number, RegExp])[] = [
      [['frobnicate'], 2, /unknown command 'frobnicate'\ncairn: see: cairn --help\n$/],
      [['stat', '--frob'], 2, /unknown option '--frob'/],
      [['get-event', '-n', '0'], 2, /give a number from 1 to 10000/],
      [['get-event', '--level', 'loud'], 2, /use info, warn or err/],
      [['get-event', '--since', 'later'], 2, /write for example/],
      [['set-config', 'x'], 2, /write KEY=VALUE/],
      [['set-config', 'mds.nothing=1'], 3, /see the parameters .*cairn get-config/],
      [['set-config', 'mds.wd.offline_tout=soon'], 2, /is no duration\n.*get-config/],
      [['set-config', 'mds.wd.offline_tout=1ms'], 2, /must be within 500ms to 10080min/],
      [['get-config', 'mds.nothing'], 3, /see them all with: cairn get-config/],
      [['get-attr', nowhere], 3, /name a file on a mount/],
      [['get-attr', cluster.directory], 2, /with -p, for example: -p \//],
      [['get-attr', '-p', '/nowhere'], 3, /\/nowhere: no such file/],
      [['set-attr', '-p', '/directory', 'replicas=2:3'], 2, /MINIMUM ≤ NORMAL/],
      [['set-attr', '-p', '/directory', 'colour=red'], 2, /use replicas, failure-domain or tier/],
      [['completion', 'tcsh'], 2, /use bash, zsh or fish/],
      [['umount', cluster.directory], 3, /findmnt -t fuse\.cairn/],
      [['mount', nowhere], 3, /mkdir -p/],
      [['mount', '-o', 'frob', second], 2, /cairn mount --help/],
      [['mount', cluster.mount], 4, /cairn umount/],
      [['status', '--dir', nowhere], 3, /start one with: cairn up --dir/],
      [['down', '--dir', nowhere], 3, /start one with: cairn up --dir/],
      [['cs', '-r', nowhere], 3, /make-cs -r DIR/],
      [['mds', '-r', nowhere], 3, /make-mds -I/],
      [['make-cs', '-r', path.join(cluster.directory, 'cs1')], 4, /an empty one/],
      [['cs', '-r', path.join(cluster.directory, 'cs1')], 4, /in use by process \d+\n.*stop that process/],
      [['plugin', 'reload', 'nothing'], 1, /cairn plugin list/],
      [['plugin', 'list', '--process', 'nothing'], 2, /unknown option/],
      [['shutdown'], 4, /1 clients are connected.*\n.*cairn umount DIR.*-f/],
      [['-c', 'other', 'stat'], 5, /put HOST:PORT of one into .*other\/bs\.list/],
    ]
    const waiting = [...cases]
    const worker = async (): Promise<void> => {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
        const [parameters, status, message] = next
        const finished = await cluster.tryCairn(...parameters)
        const what = `cairn ${parameters.join(' ')}: ${finished.status}\n${finished.stderr}`
        assert.equal(finished.status, status, what)
        assert.match(finished.stderr, message, what)
        assert.match(finished.stderr, /^(cairn: .*\n){2}$/, what)
        assert.equal(finished.stdout, '', what)
      }
    }
    await Promise.all([worker(), worker(), worker(), unreachable()])
  })

  /** Takes the whole deadline for finding a master, so it runs beside the others. */
  async function unreachable(): Promise<void> {
    const etc = path.join(cluster.directory, 'elsewhere')
    const directory = path.join(etc, 'clusters', 'demo')
    fs.mkdirSync(directory, { recursive: true })
    fs.writeFileSync(path.join(directory, 'bs.list'), '127.0.0.1:9 # nobody\n')
    fs.copyFileSync(cluster.keyFile, path.join(directory, 'auth_digest.key'))
    const finished = await runProgram(CAIRN, ['--etc', etc, 'stat'], { timeoutMs: 40_000 })
    assert.equal(finished.status, 5, finished.stderr)
    assert.match(finished.stderr, /127\.0\.0\.1:9.*\n.*bs\.list names its base port/)
  }

  it('a cluster of another name is not taken for the wanted one', async () => {
    const etc = path.join(cluster.directory, 'misled')
    const directory = path.join(etc, 'clusters', 'other')
    fs.mkdirSync(directory, { recursive: true })
    fs.writeFileSync(path.join(directory, 'bs.list'), `${cluster.metadataServers[0]}\n`)
    fs.copyFileSync(cluster.keyFile, path.join(directory, 'auth_digest.key'))
    const finished = await runProgram(CAIRN, ['--etc', etc, 'stat'], { timeoutMs: 40_000 })
    assert.equal(finished.status, 4, finished.stderr)
    assert.match(finished.stderr, /'?demo'?/)
  })

  it('a reader that closes the pipe early is no error', async () => {
    const etc = path.join(cluster.directory, 'etc')
    assert.equal(
      await must('bash', ['-c', `set -o pipefail; ${CAIRN} --etc ${etc} get-config | head -n 1`]),
      'PARAMETER                    VALUE\n',
    )
  })

  it('each command has an example in its help', async () => {
    const names = [...(await cluster.cairn('--help')).matchAll(/^ {2}([a-z][a-z-]+)(?= |$)/gm)].map(
      (match) => match[1] ?? '',
    )
    assert.ok(names.length >= 18, names.join(' '))
    await Promise.all(
      names.map(async (name) => {
        if (name === 'help' || name === 'plugin') return
        assert.match(await cluster.cairn(name, '--help'), /Example:\n {2}cairn /, name)
      }),
    )
  })

  it('completion scripts are scripts, and know the commands', async () => {
    for (const shell of ['bash', 'zsh', 'fish']) {
      const script = await cluster.cairn('completion', shell)
      for (const name of ['make-mds', 'mount', 'fsck']) assert.ok(script.includes(name), `${shell}: ${name}`)
      if (shell === 'bash') {
        await must('bash', ['-n'], { input: script })
        const completed = await must('bash', [
          '-c',
          `${script}\nCOMP_WORDS=(cairn sta) COMP_CWORD=1; _cairn; echo "\${COMPREPLY[@]}"`,
        ])
        assert.deepEqual(completed.trim().split(' ').sort(), ['stat', 'status'])
      }
    }
  })

  it('set-attr and get-attr, on the mount and inside the cluster', async () => {
    const directory = path.join(cluster.mount, 'directory')
    await cluster.cairn('set-attr', directory, 'replicas=2:1', 'tier=1')
    assert.match(
      await cluster.cairn('get-attr', '-p', '/directory'),
      /replicas=2:1\n.*failure-domain=disk\n.*tier=1\n/,
    )
    assert.match(await cluster.cairn('get-attr', path.join(directory, 'file')), /replicas=3:2/)
    fs.writeFileSync(path.join(directory, 'newer'), 'x')
    assert.match(await cluster.cairn('get-attr', path.join(directory, 'newer')), /replicas=2:1/)
    const { changed } = await json('set-attr', '-R', '-p', '/', 'replicas=2:2', 'tier=0')
    assert.ok(Number(changed) >= 4)
    const { effective } = (await json('get-attr', '-p', '/directory/file')) as {
      effective: Record<string, unknown>
    }
    assert.equal(effective['replicasNormal'], 2)
    await cluster.cairn('set-attr', '-R', '-p', '/', 'replicas=3:2')
    await cluster.allHealthy()
  })

  it('set-config changes a parameter and get-config shows it', async () => {
    assert.match(
      await cluster.cairn('set-config', 'mds.wd.offline_tout=90s', 'mds.gc.grace=2s'),
      /mds\.wd\.offline_tout = 90s/,
    )
    assert.deepEqual((await json('get-config', 'mds.wd.offline_tout'))['values'], {
      'mds.wd.offline_tout': '90s',
    })
    await cluster.cairn('set-config', 'mds.wd.offline_tout=5min')
  })

  it('fsck finds planted damage, --repair has it repaired, get-event -f tells it as it happens', async () => {
    const data = randomBytes(100_000)
    const repository = path.join(cluster.directory, 'cs2')
    const files = (): string[] =>
      fs
        .readdirSync(path.join(repository, 'chunks'), { recursive: true, withFileTypes: true })
        .flatMap((entry) => (entry.isFile() ? [path.join(entry.parentPath, entry.name)] : []))
    const known = new Set(files())
    const descriptor = fs.openSync(path.join(cluster.mount, 'checked'), 'w')
    fs.writeSync(descriptor, data)
    fs.fsyncSync(descriptor)
    fs.closeSync(descriptor)
    const chunk = files().find((file) => !known.has(file)) ?? ''
    await cluster.fsckClean()
    const follower = spawn(
      CAIRN,
      ['--etc', path.join(cluster.directory, 'etc'), 'get-event', '-n', '1', '-f', '--json'],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    let told = ''
    follower.stdout.on('data', (text) => {
      told += String(text)
    })
    try {
      await until('the follower is there', () => told.includes('"events"'))
      const image = fs.openSync(chunk, 'r+')
      fs.writeSync(image, Buffer.from('rotten'), 0, 6, pagePosition(3) + 100)
      fs.closeSync(image)
      const found = await cluster.tryCairn('fsck')
      assert.equal(found.status, 1, found.stdout)
      assert.match(found.stdout, new RegExp(`page 3 of inode \\d+ on CS#${cluster.serverId(2)}: bad-page`))
      assert.match(found.stderr, /run with --repair/)
      await cluster.tryCairn('fsck', '--repair')
      await until('it is repaired', async () => {
        const result = JSON.parse((await cluster.tryCairn('fsck', '--json')).stdout) as FsckResult
        return result.problemCount === 0 || JSON.stringify(result.problems)
      })
      await until('the event is told', () => /PAGES_REPAIRED/.test(told) || told)
    } finally {
      follower.kill('SIGINT')
    }
    assert.ok(fs.readFileSync(path.join(cluster.mount, 'checked')).equals(data))
  })

  it('plugins are listed and switched on the running processes', async () => {
    const list = await cluster.cairn('plugin', 'list')
    for (const name of ['mds-mds1', 'cs-cs1', 'cs-cs2', 'cs-cs3'])
      assert.match(list, new RegExp(`^${name} +fuse `, 'm'))
    assert.match(list, /^fuse-\d+ +fuse +\S+ +ACTIVE /m, 'the mount')
    assert.match(
      await cluster.cairn('plugin', 'reload', 'fuse', '--process', 'mds-mds1'),
      /^mds-mds1: fuse is /,
    )
  })

  it('mount with options, umount; in use is refused', async () => {
    const mounted = await json(
      'mount',
      '-o',
      `ro,noexec,prefer_cs=${cluster.serverId(2)}`,
      '--log',
      path.join(cluster.directory, 'log', 'second.log'),
      second,
    )
    assert.ok(isAlive(Number(mounted['processId'])))
    const file = path.join(second, 'directory', 'file')
    assert.equal(fs.readFileSync(file, 'utf8'), 'contents')
    assert.throws(() => fs.writeFileSync(file, 'x'), { code: 'EROFS' })
    assert.match(
      await must('findmnt', ['-no', 'SOURCE,FSTYPE,OPTIONS', second]),
      /^cairn:\/\/demo +fuse\.cairn +ro,.*noexec/,
    )
    const descriptor = fs.openSync(file, 'r')
    const busy = await cluster.tryCairn('umount', second)
    assert.equal(busy.status, 4, busy.stderr)
    assert.match(busy.stderr, /fuser -vm/)
    fs.closeSync(descriptor)
    await cluster.cairn('umount', second)
    assert.equal(isMounted(second), false)
    assert.equal(isAlive(Number(mounted['processId'])), false)
  })

  it('a line in fstab: mount DIR and umount DIR do it', async () => {
    const fstab = path.join(cluster.directory, 'fstab')
    const escaped = second.replaceAll(' ', '\\040')
    fs.writeFileSync(
      fstab,
      `cairn://demo ${escaped} fuse.cairn rw,nosuid,nodev,_netdev,hold_timeout=60 0 0\n`,
    )
    const before = fs.existsSync(HELPER) ? fs.readlinkSync(HELPER) : null
    if (before === null) fs.symlinkSync(HELPER_SOURCE, HELPER)
    try {
      const env = { CAIRN_ETC: path.join(cluster.directory, 'etc') }
      await must('mount', ['-T', fstab, second], { env })
      fs.writeFileSync(path.join(second, 'by fstab'), 'yes')
      assert.equal(fs.readFileSync(path.join(cluster.mount, 'by fstab'), 'utf8'), 'yes')
      assert.match(await must('findmnt', ['-no', 'OPTIONS', second]), /nosuid,nodev/)
      await must('umount', [second])
      assert.equal(isMounted(second), false)
      const wrong = await runProgram('mount', ['-t', 'fuse.cairn', 'cairn://nothing', second], { env })
      assert.equal(wrong.status, 32)
      assert.match(wrong.stderr, /this host is not authenticated in cluster 'nothing'/)
    } finally {
      if (before === null) fs.unlinkSync(HELPER)
    }
  })

  it('kill -9 of the mount process leaves no stuck mount', async () => {
    const { processId } = await json(
      'mount',
      '--log',
      path.join(cluster.directory, 'log', 'second.log'),
      second,
    )
    fs.writeFileSync(path.join(second, 'before the crash'), 'x')
    process.kill(Number(processId), 'SIGKILL')
    await until('the mount is gone', () => !isMounted(second))
    assert.deepEqual(fs.readdirSync(second), [])
    await cluster.cairn('mount', '--log', path.join(cluster.directory, 'log', 'second.log'), second)
    assert.equal(fs.readFileSync(path.join(second, 'before the crash'), 'utf8'), 'x')
    await cluster.cairn('umount', second)
  })

  it('hold_timeout: what is held longer fails, and works again afterwards', async () => {
    await cluster.cairn(
      'mount',
      '-o',
      'hold_timeout=2',
      '--log',
      path.join(cluster.directory, 'log', 'second.log'),
      second,
    )
    const file = path.join(second, 'held')
    await must('dd', ['if=/dev/urandom', `of=${file}`, 'bs=64k', 'count=1', 'conv=fsync'])
    const stopped = (await cluster.processes()).filter(
      (service) => service.role === 'cs' && service.pid !== null,
    )
    for (const { pid } of stopped) process.kill(Number(pid), 'SIGSTOP')
    try {
      const startMs = performance.now()
      const held = await runProgram(
        'dd',
        ['if=/dev/urandom', `of=${file}`, 'bs=64k', 'count=1', 'conv=fsync'],
        { timeoutMs: 30_000 },
      )
      assert.equal(held.status, 1, held.stderr)
      assert.match(held.stderr, /timed out/i)
      assert.ok(performance.now() - startMs < 20_000)
    } finally {
      for (const { pid } of stopped) process.kill(Number(pid), 'SIGCONT')
    }
    await must('dd', ['if=/dev/urandom', `of=${file}`, 'bs=64k', 'count=1', 'conv=fsync'])
    await cluster.cairn('umount', second)
    await cluster.allHealthy()
  })

  it('a second up on the directory is refused and names the process', async () => {
    const { pid } = (await json('status', '--dir', cluster.directory)) as unknown as UpStatus
    for (const way of [['--detach'], []]) {
      const finished = await cluster.tryCairn('up', '--dir', cluster.directory, ...way)
      assert.equal(finished.status, 4, finished.stderr)
      assert.match(
        finished.stderr,
        new RegExp(`\\(process ${pid}\\)\\n.*cairn status --dir .*cairn down --dir`),
      )
    }
  })

  it('down keeps the data; up again adds chunk servers, and refuses to leave some out', async () => {
    const pids = (await cluster.processes()).map((service) => service.pid)
    await cluster.down()
    for (const pid of pids) assert.equal(pid !== null && isAlive(pid), false)
    assert.equal(isMounted(cluster.mount), false)
    const gone = await cluster.tryCairn('status', '--dir', cluster.directory)
    assert.equal(gone.status, 3)
    assert.match(gone.stderr, /is not running\n.*cairn up --dir/)
    for (const [parameters, message] of [
      [['--cs', '2'], /would leave data behind/],
      [['--replicas', '2'], /cairn set-attr -R/],
      [['--hosts', '2'], /leave --hosts out/],
      [['-c', 'other'], /choose another --dir/],
      [['--port', '4567'], /leave --port out/],
    ] as const) {
      const refused = await cluster.tryCairn('up', '--dir', cluster.directory, '--detach', ...parameters)
      assert.equal(refused.status, 4, refused.stderr)
      assert.match(refused.stderr, message)
    }
    await must(CAIRN, ['up', '--dir', cluster.directory, '--detach', '--cs', '4'])
    assert.equal((await cluster.statistics()).cs.length, 4)
    assert.equal(fs.readFileSync(path.join(cluster.mount, 'directory', 'file'), 'utf8'), 'contents')
    const named = (await cluster.processes()).map((service) => service.id)
    const members = Array.from({ length: metadataServerCount() }, (_, index) => `mds${index + 1}`)
    assert.deepEqual(named, [...members, 'cs1', 'cs2', 'cs3', 'cs4', 'mount'])
  })
})
