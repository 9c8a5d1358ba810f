/**
 * After the trouble: every chunk becomes healthy within a bounded time, its replicas are equal page by page,
 * no server keeps a replica that nobody knows, and a new client reads exactly what was promised. Once all snapshots are
 * deleted nothing is left that was only theirs.
 */
import { checkCluster, type FsckResult } from '../../core/cli/fsck.ts'
import type { SimulatedCluster } from '../../core/testing/simulation/simulated-cluster.ts'
import type { ChunkView } from '../../core/testing/simulation/simulated-roles.ts'
import { stateDigest } from '../../core/metadata/state/state.ts'
import { checkFiles, checkNames, checkSnapshots } from './final-reads.ts'
import type { ClientUnderLoad } from './client-under-load.ts'
import type { SharedState } from './shared-state.ts'

const HEALTHY_LIMIT_MS = 180_000
/** Looking at every chunk after every event would take longer than the events. */
const LOOK_INTERVAL_MS = 20
const CHECK_LIMIT_MS = 60_000
/** Until all metadata servers have applied what one of them has. */
const MEMBERS_LIMIT_MS = 20_000

export async function checkAtEnd(
  cluster: SimulatedCluster,
  shared: SharedState,
  clients: readonly ClientUnderLoad[],
  directory: number,
): Promise<void> {
  const { clock } = cluster
  const { oracle } = shared
  for (const { node } of clients) {
    if (node.client !== null) await clock.settled(node.client.close(), CHECK_LIMIT_MS)
  }
  await waitUntilHealthy(cluster, shared)
  if (oracle.violation !== null) return
  await checkMembers(cluster, shared)
  checkScrub(cluster, shared)
  checkOverlays(cluster, shared)
  // one is enough: the replicas are equal
  const reader = cluster.addClient('reader')
  reader.restart()
  await clock.runUntil(() => reader.client !== null, CHECK_LIMIT_MS)
  if (reader.client === null) return oracle.fail('the reader does not connect')
  const { client } = reader
  // replicas are compared once, as overlays or as what has become of them
  const isMergedFirst = oracle.snapshots.entries.size % 2 === 0
  if (!isMergedFirst) await checkReplicas(cluster, shared)
  await clock.settled(checkSnapshots(client, 'reader', shared), CHECK_LIMIT_MS)
  await waitUntilHealthy(cluster, shared)
  if (oracle.violation !== null) return
  checkOverlays(cluster, shared)
  if (isMergedFirst) await checkReplicas(cluster, shared)
  await clock.settled(checkNames(client, 'reader', shared, directory), CHECK_LIMIT_MS)
  await clock.settled(checkFiles(client, 'reader', shared), CHECK_LIMIT_MS)
  await clock.settled(client.close(), CHECK_LIMIT_MS)
}

export async function waitUntilHealthy(cluster: SimulatedCluster, shared: SharedState): Promise<void> {
  let nextLookMs = 0
  const isHealthy = (): boolean => {
    if (cluster.clock.nowMs() < nextLookMs) return false
    nextLookMs = cluster.clock.nowMs() + LOOK_INTERVAL_MS
    return (
      cluster.isServing &&
      cluster
        .chunks()
        .every(
          (chunk) => chunk.isSettled && chunk.inSync.length === chunk.wantedCount && isHere(cluster, chunk),
        ) &&
      cluster.chunkServers.every(({ role, isDiskDead }) => isDiskDead || role?.badPageCount === 0) &&
      strays(cluster).length === 0
    )
  }
  if (await cluster.clock.runUntil(isHealthy, HEALTHY_LIMIT_MS)) return
  const sick = cluster
    .chunks()
    .filter(
      (chunk) => !chunk.isSettled || chunk.inSync.length !== chunk.wantedCount || !isHere(cluster, chunk),
    )
  const badPages = cluster.chunkServers.map(({ name, role }) => `${name} ${role?.badPageCount}`).join(', ')
  shared.oracle.fail(
    `not healthy ${HEALTHY_LIMIT_MS} ms after the end of the trouble: serving ${cluster.isServing}; ` +
      `${sick.map((chunk) => JSON.stringify(chunk)).join('; ')}; bad pages: ${badPages}; stray replicas: ${strays(cluster).join(', ')}`,
  )
}

/** Every metadata server has caught up with the master, and what it knows is the same. */
async function checkMembers(cluster: SimulatedCluster, shared: SharedState): Promise<void> {
  const members = cluster.metadataServers
  const indexes = (): number[] => members.map(({ role }) => role?.server.log.appliedIndex ?? -1)
  const isEqual = (): boolean => new Set(indexes()).size === 1
  if (!(await cluster.clock.runUntil(isEqual, MEMBERS_LIMIT_MS)))
    shared.oracle.fail(`the metadata servers have applied up to ${indexes().join(', ')}`)
  const digests = members.map(({ role }) => (role === null ? '' : stateDigest(role.server.state)))
  if (isEqual() && new Set(digests).size !== 1)
    shared.oracle.fail(`the metadata servers differ at ${indexes()[0]}: ${digests.join(', ')}`)
}

/** No disk of the fault menu loses a write together with its checksum: replicas that verify are equal (rule R2). */
function checkScrub(cluster: SimulatedCluster, shared: SharedState): void {
  for (const { code, message } of cluster.master?.role?.server.state.events.values() ?? [])
    if (code === 'REPLICAS_DIFFER' || code === 'REPLICAS_GUESSED')
      shared.oracle.fail(`scrubbing found a difference: ${message}`)
}

/** What reads through what: the quorum knows it of each replica, and whatever is read through is there. */
function checkOverlays(cluster: SimulatedCluster, shared: SharedState): void {
  const known = new Map<string, number>()
  for (const { chunk, overlays } of cluster.chunks())
    for (const { server, parent } of overlays) known.set(`${chunk}@${server}`, parent)
  for (const node of cluster.chunkServers) {
    if (node.isDiskDead) continue
    const replicas = node.role?.replicas() ?? []
    const here = new Set(replicas.map(({ chunk }) => chunk))
    for (const { chunk, parent } of replicas) {
      const expected = known.get(`${chunk}@${node.server}`) ?? 0
      if (expected !== parent)
        shared.oracle.fail(
          `chunk ${chunk} on ${node.name} reads through ${parent}, for the quorum ${expected}`,
        )
      if (parent !== 0 && !here.has(parent))
        shared.oracle.fail(`chunk ${chunk} on ${node.name} reads through ${parent}, which is not there`)
    }
  }
}

/** A server whose disk was replaced still counts as in sync until it is given up (offline_tout). */
function isHere(cluster: SimulatedCluster, { inSync }: ChunkView): boolean {
  return inSync.every((server) =>
    cluster.chunkServers.some((node) => node.server === server && !node.isDiskDead),
  )
}

/** Replicas on disks of which the quorum does not know, or not any more. */
function strays(cluster: SimulatedCluster): string[] {
  const known = new Set<string>()
  for (const chunk of cluster.chunks())
    for (const server of chunk.inSync) known.add(`${chunk.chunk}@${server}`)
  const found: string[] = []
  for (const node of cluster.chunkServers) {
    // It can delete nothing any more.
    if (node.isDiskDead) continue
    for (const { chunk } of node.role?.replicas() ?? []) {
      if (!known.has(`${chunk}@${node.server}`)) found.push(`chunk ${chunk} on ${node.name}`)
    }
  }
  return found
}

/** Again when pages rotted that nobody had read since: the first look finds them, and they are repaired. */
export async function checkReplicas(cluster: SimulatedCluster, shared: SharedState): Promise<void> {
  let result = await fsck(cluster)
  const { problems } = result
  if (problems.length > 0 && problems.every(({ kind }) => kind === 'bad-page' || kind === 'differs')) {
    await waitUntilHealthy(cluster, shared)
    result = await fsck(cluster)
  }
  for (const problem of result.problems) shared.oracle.fail(`fsck: ${JSON.stringify(problem)}`)
  if (result.notCompared > 0) shared.oracle.fail(`fsck: ${result.notCompared} chunks still in use`)
}

async function fsck(cluster: SimulatedCluster): Promise<FsckResult> {
  const admin = await cluster.clock.settled(cluster.connectAdmin(), CHECK_LIMIT_MS)
  const result: FsckResult = await cluster.clock.settled(
    checkCluster(admin, { repairs: false, onProgress: () => {} }),
    CHECK_LIMIT_MS,
  )
  await cluster.clock.settled(admin.close(), CHECK_LIMIT_MS)
  return result
}
