/**
 * A cluster set up by an administrator, command by command, each host with its own configuration root; `up`
 * with pretended hosts; `npm start` in a terminal; and `up` where mounting is not possible.
 * Contract: docs/cli.md; guide: Setting Up a Cluster, Configuring Failure Domains.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { it, type TestContext } from 'node:test'
import type { ClusterStatistics, ServiceEntry } from '../../core/wire/messages/statistics.ts'
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

const PROJECT = path.join(import.meta.dirname, '..', '..')

/** Of the first metadata server; the others follow in pairs. The ports of this file are nobody else's. */
const BASE_PORT = 14_510

/** Hosts that are directories with an `etc` of their own; ends all they started with the test. */
class Hosts {
  readonly directory: string
  readonly #children: ChildProcess[] = []

  constructor(t: TestContext) {
    this.directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cairn-hosts-'))
    t.after(async () => {
      for (const child of this.#children) child.kill('SIGKILL')
      await until('all processes are gone', () =>
        this.#children.every((child) => child.pid === undefined || !isAlive(child.pid)),
      )
      await runProgram('umount', ['-l', path.join(this.directory, 'mnt')])
      fs.rmSync(this.directory, { recursive: true, force: true })
    })
  }

  path(...parts: string[]): string {
    return path.join(this.directory, ...parts)
  }

  run(host: string, ...parameters: string[]): Promise<string> {
    return must(CAIRN, ['--etc', this.path(host), '-c', 'shop', ...parameters])
  }

  /** A role in the foreground, as systemd would start it. */
  start(host: string, ...parameters: string[]): ChildProcess {
    const child = spawn(CAIRN, ['--etc', this.path(host), '-c', 'shop', ...parameters], { stdio: 'ignore' })
    this.#children.push(child)
    return child
  }

  /** What an administrator copies to a host that joins. */
  tellAddress(host: string, address: string): void {
    const directory = this.path(host, 'clusters', 'shop')
    fs.mkdirSync(directory, { recursive: true })
    fs.writeFileSync(path.join(directory, 'bs.list'), `# the first metadata server\n${address}\n`)
  }
}

it('make-mds, mds, make-cs, cs, mount, shutdown by hand on hosts of their own', {
  timeout: 180_000,
}, async (t) => {
  const hosts = new Hosts(t)
  const address = `127.0.0.1:${BASE_PORT}`
  const repository = hosts.path('mds')
  const password = hosts.path('password')
  fs.writeFileSync(password, 'a password for the shop\n', { mode: 0o600 })
  const made = await hosts.run(
    'a',
    ...['make-mds', '-I', '-a', address, '-r', repository, '--replicas', '2', '--password-file', password],
  )
  assert.match(made, /cairn .*mds -r/)
  const roles = [hosts.start('a', 'mds', '-r', repository)]
  await until('the metadata server answers', async () => {
    const finished = await runProgram(CAIRN, ['--etc', hosts.path('a'), '-c', 'shop', 'stat'])
    return finished.status === 0 || finished.stderr
  })
  for (let number = 2; number <= metadataServerCount(); number++) {
    const host = `mds${number}`
    hosts.tellAddress(host, address)
    await hosts.run(host, 'auth-node', '--password-file', password)
    const own = `127.0.0.1:${BASE_PORT + 2 * (number - 1)}`
    const joined = await hosts.run(host, 'make-mds', '-a', own, '-r', hosts.path(`mds-${number}`))
    assert.match(joined, new RegExp(`MDS#${number} is created`))
    roles.push(hosts.start(host, 'mds', '-r', hosts.path(`mds-${number}`)))
    await until(`MDS#${number} takes part`, async () => {
      const { mds } = JSON.parse(await hosts.run('a', 'stat', '--json')) as ClusterStatistics
      return mds.some(({ id, status }) => id === number && status === 'active') || JSON.stringify(mds)
    })
  }
  for (const host of ['b', 'c', 'd']) {
    hosts.tellAddress(host, address)
    await hosts.run(host, 'auth-node', '--password-file', password)
    fs.writeFileSync(hosts.path(host, 'location'), `0.0.${host}\n`)
    const warned = await runProgram(CAIRN, [
      '--etc',
      hosts.path(host),
      '-c',
      'shop',
      'make-cs',
      '-r',
      hosts.path(`cs-${host}`),
      '-a',
      '127.0.0.1',
    ])
    assert.equal(warned.status, 0, warned.stderr)
    assert.match(warned.stdout, /Start it with: cairn -c shop cs -r/)
    assert.match(warned.stderr, /^cairn: warning: /m, 'it lies on a system disk')
    roles.push(hosts.start(host, 'cs', '-r', hosts.path(`cs-${host}`)))
  }
  await until('three chunk servers', async () => {
    const stat = JSON.parse(await hosts.run('a', 'stat', '--json')) as {
      cs: { status: string; location: string }[]
    }
    return stat.cs.filter((server) => server.status === 'active').length === 3 || JSON.stringify(stat.cs)
  })
  assert.match(await hosts.run('b', 'get-attr', '-p', '/'), /replicas=2:\d\n.*failure-domain=host/)
  hosts.tellAddress('client', address)
  await hosts.run('client', 'auth-node', '--password-file', password)
  const mount = hosts.path('mnt')
  fs.mkdirSync(mount)
  await hosts.run('client', 'mount', '--log', hosts.path('mount.log'), mount)
  await must('cp', ['-a', path.join(PROJECT, 'core', 'base'), mount])
  await must('diff', ['-r', path.join(PROJECT, 'core', 'base'), path.join(mount, 'base')])
  assert.match(await hosts.run('c', 'fsck'), /: clean/)
  const refused = await runProgram(CAIRN, ['--etc', hosts.path('a'), '-c', 'shop', 'shutdown'])
  assert.equal(refused.status, 4, refused.stderr)
  assert.match(refused.stderr, /clients are connected/)
  await hosts.run('client', 'umount', mount)
  await hosts.run('a', 'shutdown')
  await until(
    'every server has ended in order',
    () => roles.every((child) => child.exitCode === 0) || roles.map((child) => String(child.exitCode)).join(),
  )
})

it('up --hosts 3: replicas of a chunk lie on different hosts', { timeout: 120_000 }, async (t) => {
  const cluster = await TestCluster.start((end) => t.after(end), {
    hosts: 3,
    chunkServers: 4,
    replicas: '2:1',
  })
  const { services } = JSON.parse(await cluster.cairn('list-services', '-C', '--json')) as {
    services: ServiceEntry[]
  }
  const hostOf = new Map(services.map((entry) => [entry.id, entry.hostId]))
  assert.equal(hostOf.size, 4)
  assert.equal(new Set(hostOf.values()).size, 3)
  assert.match(await cluster.cairn('get-attr', '-p', '/'), /failure-domain=host/)
  for (let file = 0; file < 12; file++) fs.writeFileSync(path.join(cluster.mount, `file-${file}`), `${file}`)
  await cluster.allHealthy()
  const chunks = await cluster.chunks()
  assert.equal(chunks.length, 12)
  for (const { members } of chunks) {
    assert.equal(members.length, 2)
    assert.equal(new Set(members.map(({ server }) => hostOf.get(server))).size, 2)
  }
})

it('npm start in a terminal says what it did and what to try, and Ctrl-C stops it', {
  timeout: 240_000,
}, async (t) => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cairn-start-'))
  t.after(() => fs.rmSync(directory, { recursive: true, force: true }))
  const count = metadataServerCount()
  const command = `npm start -- --dir ${directory}/demo${count === 1 ? '' : ` --mds ${count}`}`
  const terminal = spawn('script', ['-qefc', command, '/dev/null'], {
    cwd: PROJECT,
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const ended = new Promise<number | null>((resolve) => terminal.once('exit', resolve))
  t.after(async () => {
    await runProgram(CAIRN, ['down', '--dir', `${directory}/demo`])
    terminal.kill('SIGKILL')
    await runProgram('umount', ['-l', `${directory}/demo/mnt`])
    fs.rmSync(directory, { recursive: true, force: true })
  })
  let shown = ''
  terminal.stdout.on('data', (data) => {
    shown += String(data)
  })
  await until('it is up', () => shown.includes('Ctrl-C stops the cluster') || shown.slice(-2000), 180_000)
  const servers = count === 1 ? '1 metadata server' : `${count} metadata servers`
  assert.ok(
    shown.includes(`Cluster 'demo' is healthy: ${servers}, 3 chunk servers, 3 replicas (writes need 2)`),
  )
  assert.match(shown, /failure-domain=disk/)
  assert.match(shown, /Try next:/)
  // What it proposes works as it stands there.
  for (const line of shown
    .split('\n')
    .filter((text) => /^ {2}\S*cairn .* (stat|get-event|fsck)\s*$/.test(text))) {
    await must('sh', ['-c', line.trim()], { cwd: PROJECT })
  }
  fs.writeFileSync(`${directory}/demo/mnt/file`, 'kept')
  const startMs = performance.now()
  terminal.stdin.write('\x03')
  await ended
  assert.ok(performance.now() - startMs < 20_000, 'it stops within seconds')
  assert.match(shown, /Stopping …/)
  assert.equal(isMounted(`${directory}/demo/mnt`), false)
  assert.equal((await runProgram(CAIRN, ['status', '--dir', `${directory}/demo`])).status, 3)
})

for (const [what, wrap, reason] of [
  ['root', ['unshare', '--user'], /running without the mount: mounting needs root/],
  [
    '/dev/fuse',
    [
      'unshare',
      '-m',
      'sh',
      '-c',
      'mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9 && exec "$@"',
      'sh',
    ],
    /running without the mount: this machine has no \/dev\/fuse/,
  ],
] as const) {
  it(`without ${what}, up runs without the mount and says why`, { timeout: 120_000 }, async (t) => {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cairn-no-mount-'))
    fs.chmodSync(directory, 0o777)
    t.after(async () => {
      await runProgram(CAIRN, ['down', '--dir', `${directory}/demo`])
      fs.rmSync(directory, { recursive: true, force: true })
    })
    const [program, ...parameters] = [...wrap, CAIRN, 'up', '--detach', '--dir', `${directory}/demo`]
    const said = await must(program ?? '', parameters)
    assert.match(said, reason)
    assert.match(said, /Cluster 'demo' is healthy/)
    assert.doesNotMatch(said, /^ +mount /m)
    const forced = await runProgram(program ?? '', [
      ...parameters.slice(0, -2),
      '--dir',
      `${directory}/other`,
      '--mount',
      directory,
    ])
    assert.equal(forced.status, 4, forced.stderr)
    assert.match(forced.stderr, /cannot mount on/)
  })
}
