// Proves on simulated members that an address is only where to look: one that moves is found again and counts,
// nobody is taken for another, hints of an administrator lead members together; and that who was removed hears
// it, whether it runs at that moment or comes back later.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BufferPool } from '../../base/buffer-pool.ts'
import type { CairnError } from '../../base/errors.ts'
import { silentLogger } from '../../platform/logger.ts'
import type { Address } from '../../platform/network.ts'
import { SeededRandom } from '../../testing/simulation/seeded-random.ts'
import { SimulatedClock } from '../../testing/simulation/simulated-clock.ts'
import type { MetadataServerNode } from '../../testing/simulation/simulated-metadata-server.ts'
import { SimulatedNetwork } from '../../testing/simulation/simulated-network.ts'
import { startTestCluster, type TestCluster } from '../../testing/test-cluster.ts'
import { Dialer } from '../../wire/dialer.ts'
import { NotMasterError } from '../../wire/not-master.ts'
import type { Identity } from '../../wire/types.ts'
import type { MemberRow } from '../state/rows.ts'
import { MemberAddresses } from './member-addresses.ts'
import { MemberTransport } from './transport.ts'

const owner = { uid: 0, gid: 0 }

function masterOf(cluster: TestCluster): MetadataServerNode {
  const master = cluster.master()
  assert.ok(master !== null, 'there is a master')
  return master
}

function rowOf(cluster: TestCluster, member: number): MemberRow | undefined {
  return cluster.master()?.role?.server.state.members.get(member)
}

const memberOf = (node: MetadataServerNode): number => node.role?.server.member ?? assert.fail('it runs')

test('one that moves is found at its new address, counts there, and the log says where it is', async () => {
  for (const which of ['master', 'another'] as const) {
    const cluster = await startTestCluster({ seed: 21, metadataServers: 3 })
    const first = masterOf(cluster)
    const mover = cluster.metadataServers.find((node) => (node === first) === (which === 'master'))
    assert.ok(mover !== undefined)
    const member = memberOf(mover)
    mover.crash()
    mover.port = 7_777
    mover.restart()
    await cluster.until(() => rowOf(cluster, member)?.port === 7_777, 20_000)
    const messages = (): string[] =>
      [...(masterOf(cluster).role?.server.state.events.values() ?? [])].map((event) => event.message)
    const at = (port: number): string => `${mover.host}:${port}`
    const message = `MDS#${member} moved from ${at(2_510)} to ${at(7_777)}`
    await cluster.until(() => messages().includes(message), 10_000)
    const idle = cluster.metadataServers.find((node) => node !== mover && node !== cluster.master())
    if (masterOf(cluster) !== mover) idle?.crash()
    await cluster.run(cluster.client.fileSystem.makeNode(1, 'after', 'file', 0o600, 0, owner))
  }
})

test('all move, one after the other: clients and chunk servers follow, whose list has only old addresses', async () => {
  const cluster = await startTestCluster({ seed: 25, metadataServers: 3 })
  for (const node of cluster.metadataServers) {
    const member = memberOf(node)
    node.crash()
    node.port = 7_777
    node.restart()
    await cluster.until(() => rowOf(cluster, member)?.port === 7_777, 20_000)
    await cluster.until(() => node.role !== null && cluster.isHealthy(), 20_000)
    // Who is connected hears it at once.
    await cluster.advance(1_000)
  }
  masterOf(cluster).crash()
  await cluster.run(cluster.client.fileSystem.makeNode(1, 'after', 'file', 0o600, 0, owner), 10_000)
  await cluster.until(() => cluster.chunkServers.every((node) => node.role?.isRegistered === true), 10_000)
})

test('one that is removed while it is away hears it when it comes back, and ends', async () => {
  const cluster = await startTestCluster({ seed: 22, metadataServers: 3 })
  const master = masterOf(cluster)
  const gone = cluster.metadataServers.find((node) => node !== master) as MetadataServerNode
  const member = memberOf(gone)
  gone.crash()
  await cluster.advance(2_000)
  const { control } = master.role?.server ?? assert.fail()
  await cluster.run(control.admin.removeMember({ member }))
  await cluster.until(() => rowOf(cluster, member)?.state === 'removed', 10_000)
  gone.restart()
  await cluster.until(() => gone.isRemoved, 10_000)
})

test('one that is removed while it runs hears it at once, and ends', async () => {
  const cluster = await startTestCluster({ seed: 23, metadataServers: 3 })
  const master = masterOf(cluster)
  const gone = cluster.metadataServers.find((node) => node !== master) as MetadataServerNode
  const { control } = master.role?.server ?? assert.fail()
  await cluster.run(control.admin.removeMember({ member: memberOf(gone) }))
  await cluster.until(() => gone.isRemoved, 3_000)
  await cluster.run(cluster.client.fileSystem.makeNode(1, 'after', 'file', 0o600, 0, owner))
})

test('who stopped a moment ago does not count: what would lose the majority is refused', async () => {
  const cluster = await startTestCluster({ seed: 24, metadataServers: 3 })
  const master = masterOf(cluster)
  const [gone, away] = cluster.metadataServers.filter((node) => node !== master) as [
    MetadataServerNode,
    MetadataServerNode,
  ]
  const { control } = master.role?.server ?? assert.fail()
  const names = [memberOf(gone), memberOf(away)] as const
  for (const stop of [() => away.pause(), () => away.losePower()]) {
    stop()
    await assert.rejects(
      cluster.run(control.admin.removeMember({ member: names[0] })),
      (error: { code?: string; next?: string }) =>
        error.code === 'REFUSED' && error.next?.includes(`MDS#${names[1]}`) === true,
    )
    away.resume()
    away.restart()
    await cluster.advance(2_000)
  }
  await cluster.run(control.admin.removeMember({ member: names[0] }))
  await cluster.until(() => gone.isRemoved, 3_000)
})

/** What a stranger is told on a port of a metadata server; null: let in. */
async function refusalOf(cluster: TestCluster, node: MetadataServerNode, offset: number, identity: Identity) {
  const dialer = new Dialer({
    ...{ clock: cluster.clock, network: cluster.network.host('stranger'), random: new SeededRandom(1) },
    ...{ logger: silentLogger, pool: new BufferPool() },
    address: { host: node.host, port: node.port + offset },
    identity: () => identity,
  })
  const seen = cluster.run(
    dialer
      .start()
      .ready(500)
      .then(
        () => null,
        (error: unknown) => error as CairnError,
      ),
  )
  const refusal = await seen
  dialer.close('seen')
  return refusal
}

test('whoever names another cluster is refused, in every role, on both ports', async () => {
  const cluster = await startTestCluster({ seed: 26, metadataServers: 3 })
  const { clusterName, clusterUuid } = masterOf(cluster).role?.server ?? assert.fail()
  const self = { session: 0, name: 'stranger' }
  for (const role of ['client', 'cs', 'admin', 'auth', 'mds'])
    for (const foreign of [
      { clusterName, clusterUuid: 'f'.repeat(clusterUuid.length) },
      { clusterName: 'another', clusterUuid: '' },
    ])
      for (const node of cluster.metadataServers)
        for (const offset of [0, 1]) {
          const refusal = await refusalOf(cluster, node, offset, { role, ...foreign, ...self })
          assert.equal(refusal?.code, 'WRONG_CLUSTER', `${role} at ${node.name} + ${offset}`)
        }
})

test('a follower serves nobody, passwords and keys included, and names the master', async () => {
  const cluster = await startTestCluster({ seed: 27, metadataServers: 3 })
  const master = masterOf(cluster)
  const { clusterName, clusterUuid } = master.role?.server ?? assert.fail()
  for (const node of cluster.metadataServers)
    for (const role of ['client', 'cs', 'admin', 'auth']) {
      const identity = { role, clusterName, clusterUuid, session: 0, name: 'somebody' }
      const refusal = await refusalOf(cluster, node, 1, identity)
      if (node === master) assert.equal(refusal, null, role)
      else {
        assert.ok(refusal instanceof NotMasterError, `${role}: ${refusal?.code}`)
        assert.deepEqual(refusal.master, master.address)
      }
    }
})

/** Members of a network of their own; each says on its connections who it is. */
function transports() {
  const clock = new SimulatedClock()
  const random = new SeededRandom(1)
  const network = new SimulatedNetwork(clock, random)
  const all = { clock, random, logger: silentLogger, pool: new BufferPool() }
  const start = (member: number, host: string) => {
    const heard: number[] = []
    const transport = new MemberTransport({
      ...all,
      network: network.host(host),
      address: { host, port: 2_510 },
      identity: () => ({ role: 'mds', clusterName: 'c', clusterUuid: '', session: 0, name: host, member }),
      onMessage: (message) => heard.push(message.from),
      onReport: (from) => heard.push(from),
      register: () => [],
      onRegister: () => {},
      isRemoved: () => false,
      onRemoved: () => {},
      onMustEnd: () => {},
      onUnreachable: () => {},
      onShutdown: () => {},
      onSnapshotPiece: () => ({}),
      onSnapshotEnd: () => ({}),
    })
    return { transport, heard, listen: () => clock.settled(transport.listen(), 1_000) }
  }
  return { clock, start }
}

test('who answers at the address of another is not taken for it, and nobody speaks for another', async () => {
  const { clock, start } = transports()
  const one = start(1, 'a')
  const three = start(3, 'b')
  await one.listen()
  await three.listen()
  const lookFor = (member: number): void =>
    one.transport.update(new Map([[member, [{ host: 'b', port: 2_510 }]]]))
  lookFor(2)
  await clock.advance(2_000)
  assert.equal(one.transport.isConnected(2), false, 'MDS#3 is not MDS#2')
  lookFor(3)
  await clock.advance(2_000)
  assert.equal(one.transport.isConnected(3), true)
  const report = { ctimePct: 0, commitsPerS: 0, cpuPct: 0, memBytes: 0, uptimeMs: 0 }
  const place = { address: { host: 'x', port: 1 }, name: 'x' }
  three.transport.report(1, 3, report, place)
  three.transport.report(1, 2, report, place)
  await clock.advance(100)
  assert.deepEqual(one.heard, [3])
})

test('hints: both places are looked at until the register says the same, or the member is gone', () => {
  let settledCount = 0
  const at = (host: string): Address => ({ host, port: 2_510 })
  const row = (member: number, host: string, state: MemberRow['state'] = 'member'): MemberRow => ({
    ...{ member, ...at(host), name: '', state },
  })
  const hints = new Map([
    [2, at('new2')],
    [3, at('new3')],
  ])
  const addresses = new MemberAddresses(
    hints,
    () => settledCount++,
    () => {},
  )
  const others = (...rows: MemberRow[]) => [...addresses.others(rows, 1)]
  assert.deepEqual(others(row(1, 'a'), row(2, 'b'), row(3, 'c'), row(4, 'd', 'removed')), [
    [2, [at('new2'), at('b')]],
    [3, [at('new3'), at('c')]],
  ])
  assert.deepEqual(others(row(2, 'new2'), row(3, 'c')), [
    [2, [at('new2')]],
    [3, [at('new3'), at('c')]],
  ])
  assert.equal(settledCount, 0)
  assert.deepEqual(others(row(2, 'new2'), row(3, 'c', 'removed')), [[2, [at('new2')]]])
  assert.equal(settledCount, 1)
})
