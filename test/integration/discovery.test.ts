// Proves discovery against programs nobody here wrote: bind9 with the guide's zone (SRV, all forms of TXT, zone
// transfer allowed and refused), avahi in network namespaces; and that dead, stale and rogue answers neither stop
// nor mislead the hosts that get them.

import assert from 'node:assert/strict'
import fs from 'node:fs'
import path from 'node:path'
import { performance } from 'node:perf_hooks'
import { test } from 'node:test'
import type { ClusterStatistics } from '../../core/wire/messages/statistics.ts'
import { isMounted, must, runProgram, TestCluster, until } from './support/cluster.ts'
import { TestHost, twoNamespaces } from './support/hosts.ts'
import { freePort, NameServer } from './support/name-server.ts'

/** As printed in the guide, "Using DNS Records". */
const GUIDE_ZONE = `
s1      A       192.168.100.1
s2      A       192.168.100.2
s3      A       192.168.100.3
; SERVICE SECTION
_pstorage._tcp.pcs1 SRV 0 1 2510     s1
_pstorage._tcp.pcs1 SRV 0 1 2510     s2
_pstorage._tcp.pcs1 SRV 0 1 2510     s3
`
const GUIDE_TEXTS = `
pstorage_clusters 300 IN TXT "cluster1,cluster2" "cluster3,cluster4"
pstorage_clusters 300 IN TXT "cluster5"
pstorage_clusters 300 IN TXT "cluster6" "cluster7"
`
const STAMP = /^\d\d-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} /
const NOT_FOUND = 3

function dns(server: NameServer | string, domain: string, more: Readonly<Record<string, unknown>> = {}) {
  const resolvers = [typeof server === 'string' ? server : server.address]
  return { 'discovery-dns': { domains: [domain], resolvers, timeout: '2 s', ...more } }
}

const GUIDE_NAMES = { service: '_pstorage._tcp', names_record: 'pstorage_clusters' }

test('cairn discover reads the zone of the guide, method by method', async (t) => {
  const server = await NameServer.start((end) => t.after(end), {
    'pcs.test': { records: GUIDE_ZONE + GUIDE_TEXTS, transfer: 'any' },
    'closed.test': { records: GUIDE_ZONE + GUIDE_TEXTS, transfer: 'none' },
    'mute.test': { records: GUIDE_ZONE, transfer: 'any' },
    'hostile.test': {
      records: `cairn_clusters TXT "good" "bad name" "../../etc" "${'x'.repeat(64)}"\n_cairn._tcp.a\\.b SRV 0 1 2510 ns`,
      transfer: 'any',
    },
  })
  const host = (plugins: Readonly<Record<string, unknown>>) => new TestHost((end) => t.after(end), plugins)
  const sevenNames = [1, 2, 3, 4, 5, 6, 7].map((number) => `cluster${number}`)

  const open = (await host(dns(server, 'pcs.test', GUIDE_NAMES)).cairn('discover')).trim().split('\n')
  assert.deepEqual(
    open.map((line) => line.replace(STAMP, '')),
    [
      'Discovering using bs.list: OK',
      'Discovering using DNS TXT records: OK',
      'Discovering using DNS zone transfer: OK',
      ...sevenNames,
      'pcs1',
    ],
  )
  assert.ok(open.slice(0, 3).every((line) => STAMP.test(line)))

  const closed = await host(dns(server, 'closed.test', GUIDE_NAMES)).cairn('discover')
  assert.match(closed, /TXT records: OK\n.* zone transfer: FAIL \(.*refuses zone transfers.*\)\ncluster1\n/)

  const mute = await host(dns(server, 'mute.test', GUIDE_NAMES)).cairn('discover')
  assert.match(mute, /TXT records: FAIL \(there is no such record in mute\.test\)\n.*transfer: OK\npcs1\n$/)

  const hostile = await host(dns(server, 'hostile.test')).tryCairn('discover', '--json')
  assert.deepEqual((JSON.parse(hostile.stdout) as { clusters: string[] }).clusters, ['good'])
  assert.match(hostile.stdout, /\\"bad name\\": not the name of a cluster/)

  // Our names in the guide's zone: nothing is found, and that is status 3 with the reasons.
  const nothing = await host(dns(server, 'closed.test')).tryCairn('discover')
  assert.equal(nothing.status, NOT_FOUND, nothing.stderr)
  assert.match(nothing.stdout, /TXT records: FAIL/)
  assert.match(nothing.stderr, /no cluster was found/)

  const addresses = await host(dns(server, 'pcs.test', GUIDE_NAMES)).cairn('-c', 'pcs1', 'discover', '--json')
  const { servers } = JSON.parse(addresses) as { servers: string[] }
  assert.deepEqual(
    servers.sort(),
    [1, 2, 3].map((number) => `192.168.100.${number}:2510`),
  )
})

test('hosts find their cluster by DNS: past dead and rogue answers, when it moves, when DNS dies', async (t) => {
  const after = (end: () => Promise<void>): void => t.after(end)
  const [cluster, rogue, impostor] = await Promise.all([
    TestCluster.start(after, { chunkServers: 1, replicas: '1', mount: false }),
    foreignServer(after, 'other'),
    foreignServer(after, 'demo'),
  ])
  const [base = ''] = cluster.metadataServers
  const port = Number(base.split(':')[1])
  const deadPort = await freePort()
  const record = (priority: number, one: number): string => `_cairn._tcp.demo SRV ${priority} 1 ${one} ns\n`
  // Written in another order than that of the priorities.
  const zone = record(30, port) + record(10, deadPort) + record(20, rogue)
  const server = await NameServer.start(after, { 'site.test': { records: zone, transfer: 'any' } })
  const host = new TestHost(after, dns(server, 'site.test'))

  const found = await host.cairn('-c', 'demo', 'discover', '--json')
  assert.deepEqual(
    (JSON.parse(found) as { servers: string[] }).servers,
    [deadPort, rogue, port].map((one) => `127.0.0.1:${one}`),
  )
  // The impostor has our name but not our password, and learns nothing of it.
  const password = path.join(cluster.directory, 'etc', 'password')
  await server.change('site.test', record(10, impostor) + record(20, rogue) + record(30, port))
  await host.cairn('-c', 'demo', 'auth-node', '--password-file', password)
  await server.change('site.test', zone)
  const status = await host.tryCairn('-c', 'demo', 'stat')
  assert.equal(status.status, 0, status.stderr)
  assert.match(status.stderr, new RegExp(`127\\.0\\.0\\.1:${rogue}: .*cluster.*; it is skipped`))
  const foreign = await host.tryCairn('-c', 'nobody', 'stat')
  assert.equal(foreign.status, 5, foreign.stderr)

  // -b and bs.list come first: a DNS server that is down does not keep them waiting, and no plugin is imported.
  const startedMs = performance.now()
  const lonely = new TestHost(after, dns(`127.0.0.1:${deadPort}`, 'site.test'))
  lonely.writeBootstrapList('demo', base)
  await lonely.cairn('-c', 'demo', 'auth-node', '--password-file', password)
  const plugin = lonely.addLoudPlugin()
  await lonely.cairn('-c', 'demo', 'stat')
  assert.equal(fs.existsSync(plugin.importedFile), false)
  assert.match(await lonely.cairn('discover'), /Discovering using a megaphone: OK/)
  assert.equal(fs.existsSync(plugin.importedFile), true)
  fs.rmSync(`${lonely.etc}/clusters/demo/bs.list`)
  await lonely.cairn('-c', 'demo', '-b', base, 'stat')
  assert.ok(performance.now() - startedMs < 20_000)

  // A chunk server that knows nothing but its cluster's name; an impostor of that name is refused by its UUID.
  await host.cairn('-c', 'demo', 'make-cs', '-r', host.path('cs'))
  assert.equal(
    fs.existsSync(`${host.etc}/clusters/demo/bs.list`),
    false,
    'what was found is not written down',
  )
  await server.change('site.test', record(10, deadPort) + record(20, impostor))
  const { child: chunkServer, output } = host.spawnCairn('-c', 'demo', 'cs', '-r', host.path('cs'))
  await until(
    'the impostor is refused',
    () => /another cluster with the name demo/.test(output()) || output(),
  )
  await server.change('site.test', record(10, deadPort) + record(20, impostor) + record(30, port))
  const areActive = async (count: number) => {
    const { cs } = (await cluster.statistics()) as ClusterStatistics
    return cs.filter((one) => one.status === 'active').length >= count || JSON.stringify(cs)
  }
  await until('the chunk server has found its cluster', () => areActive(2))

  // A mount, and then everything without DNS: last answers stay good, and the impostor among them stays refused.
  await server.change('site.test', record(10, impostor) + record(20, port))
  const mount = host.path('mnt')
  fs.mkdirSync(mount)
  t.after(() => runProgram('umount', ['-l', mount]))
  const { child: mounted } = host.spawnCairn('-c', 'demo', 'mount', mount, '--foreground')
  await until('mounted', () => isMounted(mount))
  await server.stop()
  await cluster.signal('mds1', 'SIGKILL')
  await until('the chunk server is back', () => areActive(2))
  fs.writeFileSync(`${mount}/file`, 'written after the restart')
  assert.equal(fs.readFileSync(`${mount}/file`, 'utf8'), 'written after the restart')
  await must('umount', [mount])
  await until('the mount has ended', () => mounted.exitCode !== null)
  await host.stop(chunkServer)
})

/** A metadata server of some other cluster on loopback; its base port. */
async function foreignServer(after: (end: () => Promise<void>) => void, cluster: string): Promise<number> {
  const port = await freePort()
  const host = new TestHost(after, {})
  await host.startCluster(cluster, `127.0.0.1:${port}`, 'a password of another cluster')
  await until(`cluster ${cluster} serves`, async () => {
    const { status, stderr } = await host.tryCairn('-c', cluster, 'stat')
    return status === 0 || stderr
  })
  return port
}

/** What avahi needs to run beside the one of this machine, if there is one: a bus and a /run of its own. */
const AVAHI = `
mount -t tmpfs tmpfs /run && mkdir -p /run/avahi-daemon /run/dbus
cat >/run/bus.conf <<'END'
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>
END
printf '[server]\\nuse-ipv6=no\\nallow-interfaces=eth7\\n[publish]\\nadd-service-cookie=no\\n' >/run/avahi.conf
dbus-daemon --config-file=/run/bus.conf --nofork --nopidfile &
while ! [ -S /run/dbus/system_bus_socket ]; do sleep 0.05; done
avahi-daemon -f /run/avahi.conf --no-drop-root --no-chroot --no-rlimits &
while ! avahi-browse -a -t >/dev/null 2>&1; do sleep 0.1; done
avahi-publish -s ghost-service _cairn._tcp 4510 cluster=ghost uuid=0 &
exec avahi-browse --resolve --parsable _cairn._tcp
`

test('zeroconf: avahi sees what we announce, we see what it announces, and a host finds its cluster', async (t) => {
  const after = (end: () => Promise<void>): void => t.after(end)
  const [first, second] = await twoNamespaces(after)
  const zeroconf = { 'discovery-zeroconf': { interfaces: ['eth7'], browse_time: '1 s' } }
  const server = new TestHost(after, zeroconf, first)
  const host = new TestHost(after, zeroconf, second)
  const stranger = new TestHost(after, {}, second)
  const avahi = stranger.spawn('unshare', ['--mount', '--pid', '--fork', '--kill-child', 'sh', '-c', AVAHI])
  await until('avahi publishes', () => /^=;.*ghost-service/m.test(avahi.output()) || avahi.output())

  const password = 'a password for two namespaces'
  const metadata = await server.startCluster('demo', '10.77.0.1:2510', password)
  // =;eth7;IPv4;NAME;TYPE;local;HOST;ADDRESS;PORT;TXT
  const resolved =
    /^=;eth7;IPv4;demo-10-77-0-1-2510;_cairn\._tcp;local;cairn-10-77-0-1\.local;10\.77\.0\.1;2510;(.*)$/m
  await until('avahi has resolved our service', () => resolved.test(avahi.output()) || avahi.output())
  const texts = resolved.exec(avahi.output())?.[1] ?? ''
  assert.match(texts, /"cluster=demo"/)
  assert.match(texts, /"uuid=[0-9a-f-]{8,}"/)

  // Who answers late, on a busy machine, is not there until the next question.
  await until('both clusters are discovered', async () => {
    const report = await host.cairn('discover')
    return report.endsWith('Discovering using zeroconf: OK\ndemo\nghost\n') || report
  })
  await until('the server of the other is discovered', async () => {
    const { stdout, stderr } = await host.tryCairn('-c', 'ghost', 'discover', '--json')
    return /"servers": ?\[\s*"10\.77\.0\.2:4510"\s*\]/.test(stdout) || stdout + stderr
  })

  // A host with nothing but the name of its cluster and the password.
  await host.cairn('-c', 'demo', 'auth-node', '--password-file', host.passwordFile(password))
  await host.cairn('-c', 'demo', 'make-cs', '-r', host.path('cs'))
  host.spawnCairn('-c', 'demo', 'cs', '-r', host.path('cs'))
  await until('the chunk server has found its cluster', async () => {
    const { cs } = JSON.parse(await host.cairn('-c', 'demo', 'stat', '--json')) as ClusterStatistics
    return (
      cs.some((one) => one.status === 'active' && one.address.startsWith('10.77.0.2:')) || JSON.stringify(cs)
    )
  })

  // Good-bye: a stop in order withdraws the announcement at once.
  await server.stop(metadata)
  const gone = /^-;eth7;IPv4;demo-10-77-0-1-2510;/m
  await until('avahi has heard the good-bye', () => gone.test(avahi.output()) || avahi.output(), 10_000)
  assert.doesNotMatch(await host.cairn('discover'), /^demo$/m)
})
