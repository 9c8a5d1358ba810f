// Proves the events about metadata servers, with the guide's texts: each said once when it begins and once when it
// is over; and that stat tells how far a member is behind, in entries and in time.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { MetadataServerNode } from '../../testing/simulation/simulated-metadata-server.ts'
import { startTestCluster, type TestCluster } from '../../testing/test-cluster.ts'

const owner = { uid: 0, gid: 0 }

function masterOf(cluster: TestCluster): MetadataServerNode {
  return cluster.master() ?? assert.fail('there is a master')
}

/** System, severity and text of all events about members, oldest first. */
function events(cluster: TestCluster): string[] {
  const all = [...(masterOf(cluster).role?.server.state.events.values() ?? [])]
  return all
    .toSorted((a, b) => a.id - b.id)
    .filter(({ code }) => /^M(?:DS|ASTER)_/.test(code))
    .map(({ system, severity, message }) => `${system} ${severity} ${message}`)
}

async function makeMany(cluster: TestCluster, prefix: string, count: number): Promise<void> {
  const { fileSystem } = cluster.client
  for (let from = 0; from < count; from += 100)
    await cluster.run(
      Promise.all(
        Array.from({ length: Math.min(100, count - from) }, (_, index) =>
          fileSystem.makeNode(1, `${prefix}${from + index}`, 'file', 0o600, 0, owner),
        ),
      ),
    )
}

async function withOneAway(window?: { entriesMax: number; bytesMax: number; step: number }) {
  const cluster = await startTestCluster({ seed: 31, metadataServers: 3, ...(window ? { window } : {}) })
  const away = cluster.metadataServers.find((node) => node !== cluster.master()) as MetadataServerNode
  const member = away.role?.server.member ?? 0
  // The master watches from a few seconds after its election on.
  await cluster.advance(6_000)
  away.crash()
  const lagOf = () =>
    masterOf(cluster)
      .role?.server.control.statistics.stat()
      .mds.find(({ id }) => id === member)
  return { cluster, away, name: `MDS#${member} (${away.host}:2510)`, lagOf }
}

test('one that falls silent, behind and catches up from the log: each is said once', async () => {
  const { cluster, away, name, lagOf } = await withOneAway()
  await makeMany(cluster, 'a', 1_100)
  await cluster.advance(15_000)
  const said = events(cluster)
  assert.equal(
    said[0],
    `JRN info MDS#${masterOf(cluster).role?.server.member} at ${masterOf(cluster).host}:2510 became master`,
  )
  const ofIt = (): string[] => events(cluster).filter((text) => text.includes(name))
  assert.deepEqual(
    ofIt().toSorted(),
    [
      `MDS warn ${name} does not answer`,
      `JRN err ${name} lags behind for more than 1000 rounds`,
      `JRN err ${name} didn't accept commits for 10 sec`,
    ].toSorted(),
  )
  const behind = lagOf()
  assert.ok(behind !== undefined && behind.lag > 1_000, `${behind?.lag} entries`)
  assert.ok(behind.lagMs >= 14_000 && behind.lagMs < 60_000, `${behind.lagMs} ms`)
  away.restart()
  await cluster.until(() => ofIt().length === 5, 10_000)
  assert.deepEqual(ofIt().slice(3).toSorted(), [
    `JRN info ${name} has caught up`,
    `MDS info ${name} answers again`,
  ])
  await cluster.until(() => lagOf()?.lag === 0 && lagOf()?.lagMs === 0, 5_000)
})

test('one that lacks more than the log holds: its full resync is said, and that it is over', async () => {
  const { cluster, away, name } = await withOneAway({ entriesMax: 50, bytesMax: 1e9, step: 10 })
  await makeMany(cluster, 'b', 200)
  away.restart()
  const ofIt = (): string[] => events(cluster).filter((text) => text.includes('resync'))
  await cluster.until(() => ofIt().length === 2, 20_000)
  assert.deepEqual(ofIt(), [
    `JRN err ${name} state is outdated and will do a full resync`,
    `JRN info ${name} has finished its full resync`,
  ])
})

test('a copy that cannot be sent is told once, with the reason, however often it is tried', async () => {
  const { cluster, away, name } = await withOneAway({ entriesMax: 50, bytesMax: 1e9, step: 10 })
  await makeMany(cluster, 'c', 200)
  masterOf(cluster).snapshotFailure = 'the disk is full'
  away.restart()
  const ofIt = (): string[] => events(cluster).filter((text) => /copy of|resync/.test(text))
  await cluster.until(() => ofIt().length === 2, 20_000)
  await cluster.advance(10_000)
  assert.deepEqual(ofIt(), [
    `JRN err ${name} state is outdated and will do a full resync`,
    `JRN err ${name} could not be sent a copy of the metadata, which is tried again: the disk is full`,
  ])
  masterOf(cluster).snapshotFailure = null
  await cluster.until(() => ofIt().length === 3, 30_000)
  assert.equal(ofIt()[2], `JRN info ${name} has finished its full resync`)
})
