/** Proves that answers of discovery are hints: dead and rogue servers are passed over, and moved ones are found. */
import assert from 'node:assert/strict'
import test from 'node:test'
import type { MetadataServers } from '../../discovery/metadata-servers.ts'
import type { Address } from '../../platform/network.ts'
import { FakeCluster } from '../testing/fake-cluster.ts'
import type { LinkAttempt, LinkEvents, MetadataLink, ServedByClient } from './transport.ts'

/** Knows servers by host name: `mds` serves, `rogue…` belongs to another cluster, everything else is dead. */
class NamedCluster extends FakeCluster {
  readonly tried: string[] = []
  servingHost = 'mds'

  override connectMetadata(
    address: Address,
    served: ServedByClient,
    events: LinkEvents<MetadataLink>,
  ): LinkAttempt {
    this.tried.push(address.host)
    if (address.host === this.servingHost) return super.connectMetadata(address, served, events)
    const isRogue = address.host.startsWith('rogue')
    let closed = false
    const timer = this.clock.setTimer(1, () => {
      closed = true
      events.onClosed('the peer belongs to another cluster', isRogue ? 'WRONG_CLUSTER' : 'DISCONNECTED')
    })
    return {
      close(reason) {
        timer.cancel()
        if (!closed) events.onClosed(reason, 'DISCONNECTED')
      },
    }
  }
}

class Servers implements MetadataServers {
  hosts: string[]
  /** What the next question finds. */
  later: string[] | undefined
  askCount = 0

  constructor(hosts: string[]) {
    this.hosts = hosts
  }

  list(): readonly Address[] {
    return this.hosts.map((host) => ({ host, port: 1 }))
  }

  ask(): Promise<readonly Address[]> {
    this.askCount += 1
    this.hosts = this.later ?? this.hosts
    return Promise.resolve(this.list())
  }

  problems(): readonly string[] {
    return []
  }
}

test('dead and rogue servers before the right one are passed over', async () => {
  const cluster = new NamedCluster(1)
  const servers = new Servers(['dead', 'rogue', 'rogue2', 'mds'])
  await cluster.connect({ metadataServers: servers })
  assert.deepEqual(cluster.tried, ['dead', 'rogue', 'rogue2', 'mds'])
  assert.equal(servers.askCount, 0)
})

test('when none of a whole round serves, discovery is asked again', async () => {
  const cluster = new NamedCluster(1)
  const servers = new Servers(['dead', 'rogue'])
  servers.later = ['dead', 'mds']
  await cluster.connect({ metadataServers: servers })
  assert.ok(servers.askCount > 0)
})

test('a list that is empty at first is waited for', async () => {
  const cluster = new NamedCluster(1)
  const servers = new Servers([])
  const connecting = cluster.connect({ metadataServers: servers })
  await cluster.clock.advance(3000)
  servers.later = ['mds']
  await connecting
})

test('when everybody refuses, and discovery knows nobody else, it is an error', async () => {
  const cluster = new NamedCluster(1)
  const servers = new Servers(['rogue', 'rogue2'])
  await assert.rejects(cluster.connect({ metadataServers: servers }), { code: 'WRONG_CLUSTER' })
})

test('a client whose servers have all moved follows them with its session', async () => {
  const cluster = new NamedCluster(1)
  const servers = new Servers(['mds'])
  const client = await cluster.connect({ metadataServers: servers })
  cluster.servingHost = 'moved'
  servers.later = ['moved']
  cluster.cutMaster()
  const owner = { uid: 0, gid: 0 }
  await cluster.clock.wait(client.fileSystem.makeNode(1, 'n', 'file', 0o600, 0, owner))
  assert.equal(cluster.tried.at(-1), 'moved')
  assert.equal(cluster.master.log.filter((method) => method === 'session.open').length, 1)
})
