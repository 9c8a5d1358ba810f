/** Proves when a metadata server counts as silent, and that a client looks for another one soon, if there is one. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { FakeCluster } from '../testing/fake-cluster.ts'
import { ManualClock } from '../testing/manual-clock.ts'
import { Silence } from './silence.ts'
import type { LinkAttempt, LinkEvents, MetadataLink, ServedByClient } from './transport.ts'
import type { Address } from '../../platform/network.ts'

function watched() {
  const clock = new ManualClock()
  let count = 0
  const silence = new Silence(
    clock,
    () => 1_000,
    () => count++,
  )
  return { clock, silence, countOf: () => count }
}

test('silent: nothing came since something was sent', async () => {
  const { clock, silence, countOf } = watched()
  silence.sent()
  await clock.advance(600)
  silence.sent()
  await clock.advance(399)
  assert.equal(countOf(), 0)
  await clock.advance(1)
  assert.equal(countOf(), 1)
})

test('what was sent before the last answer may wait at the other side', async () => {
  const { clock, silence, countOf } = watched()
  silence.sent()
  await clock.advance(500)
  silence.heard()
  await clock.advance(5_000)
  silence.sent()
  await clock.advance(999)
  assert.equal(countOf(), 0)
  await clock.advance(1)
  assert.equal(countOf(), 1)
})

/** Nobody answers connections but `serving`; counts what is tried. */
class Dialled extends FakeCluster {
  readonly tried: string[] = []

  override connectMetadata(
    address: Address,
    served: ServedByClient,
    events: LinkEvents<MetadataLink>,
  ): LinkAttempt {
    this.tried.push(address.host)
    if (address.host !== 'stopped') return super.connectMetadata(address, served, events)
    return { close: (reason) => events.onClosed(reason, 'DISCONNECTED') }
  }
}

test('a silent master is left after a second when there is another server', async () => {
  const cluster = new Dialled(1)
  await cluster.connect({ metadataServers: ['one:1', 'two:1'] })
  await cluster.clock.advance(3_000)
  assert.deepEqual(cluster.tried, ['one'])
  cluster.masterSilent = true
  await cluster.clock.advance(1_600)
  assert.deepEqual(cluster.tried.slice(0, 2), ['one', 'two'])
})

test('one that takes connections and says nothing holds up the search for a short time only', async () => {
  const cluster = new Dialled(1)
  const startedMs = cluster.clock.nowMs()
  await cluster.connect({ metadataServers: ['stopped:1', 'two:1'] })
  assert.deepEqual(cluster.tried, ['stopped', 'two'])
  assert.ok(cluster.clock.nowMs() - startedMs < 1_000)
})

test('a slow link to the only server is kept', async () => {
  const cluster = new Dialled(1)
  await cluster.connect()
  cluster.latencyMs = 1_000
  await cluster.clock.advance(20_000)
  assert.deepEqual(cluster.tried, ['mds'])
})
