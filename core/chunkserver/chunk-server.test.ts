/** Real chunk servers on loopback sockets and a real file system, under a metadata server played by the test. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { BufferPool } from '../base/buffer-pool.ts'
import { MIB, PAGE_SIZE_BYTES } from '../base/units.ts'
import { silentLogger } from '../platform/logger.ts'
import { NodeClock } from '../platform/node/clock.ts'
import { NodeDisk } from '../platform/node/disk.ts'
import { NodeNetwork } from '../platform/node/network.ts'
import { nodeRandom as random } from '../platform/node/random.ts'
import { pageChecksums } from '../wire/checksum.ts'
import { DataOp, type DataRequest } from '../wire/data.ts'
import { Dialer } from '../wire/dialer.ts'
import {
  chunkServerOrderMethods,
  type ChunkServerOrderMethods,
  chunkServerPortMethods,
  chunkServerUpMethods,
  type ChunkServerUpMethods,
} from '../wire/messages/chunk.ts'
import type { ParamsOf } from '../wire/messages/method.ts'
import { WireServer } from '../wire/server.ts'
import type { Caller, Identity, Peer } from '../wire/types.ts'
import { ChunkServer } from './chunk-server.ts'
import { createStore } from './store/store-open.ts'
import { dataRequest, pattern } from '../testing/chunk-store-rig.ts'

const network = new NodeNetwork()
const clock = new NodeClock()
const pool = new BufferPool()
const logger = silentLogger
const root = mkdtempSync(join(tmpdir(), 'cairn-cs-'))
const cleanups: (() => Promise<void>)[] = []

after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup()
  rmSync(root, { recursive: true })
})

function identity(role: string, session = 0): Identity {
  return { role, clusterName: 'test', clusterUuid: '', session, name: 'test' }
}

/** Waits for a condition with a deadline, a turn of the event loop at a time. */
async function until(what: string, condition: () => boolean): Promise<void> {
  const deadlineMs = clock.nowMs() + 10_000
  while (!condition()) {
    assert.ok(clock.nowMs() < deadlineMs, `in time: ${what}`)
    await new Promise<void>((resolve) => clock.setTimer(2, resolve))
  }
}

interface Known {
  readonly registration: ParamsOf<ChunkServerUpMethods, 'cs.register'>
  readonly caller: Caller<ChunkServerOrderMethods>
  reported: boolean
  replicas: ParamsOf<ChunkServerUpMethods, 'cs.report'>['replicas']
  heartbeats: number
}

/** The metadata server's side of the protocol: numbers out, reports in. */
class Master {
  readonly servers = new Map<number, Known>()
  readonly joined: ParamsOf<ChunkServerUpMethods, 'cs.joined'>[] = []
  readonly badPages: ParamsOf<ChunkServerUpMethods, 'cs.badPages'>[] = []
  readonly merged: ParamsOf<ChunkServerUpMethods, 'cs.merged'>['replicas'] = []
  readonly server: WireServer
  #nextServer = 1025
  #registration = 0

  constructor() {
    this.server = new WireServer({
      network,
      clock,
      logger,
      pool,
      identity: () => identity('mds'),
      onPeer: (peer) => this.#onPeer(peer),
    })
  }

  #onPeer(peer: Peer): void {
    let known: Known | null = null
    peer.serve(chunkServerUpMethods, {
      'cs.register': (registration) => {
        const server = registration.server === 0 ? this.#nextServer++ : registration.server
        const caller = peer.caller(chunkServerOrderMethods)
        known = { registration, caller, reported: false, replicas: [], heartbeats: 0 }
        this.servers.set(server, known)
        return { server, registration: ++this.#registration, heartbeatMs: 100 }
      },
      'cs.report': ({ replicas, last }) => {
        known?.replicas.push(...replicas)
        if (known !== null) known.reported = last
        return {}
      },
      'cs.heartbeat': () => {
        if (known !== null) known.heartbeats++
        return {}
      },
      'cs.joined': (event) => {
        this.joined.push(event)
        return {}
      },
      'cs.joinFailed': () => ({}),
      'cs.badPages': (event) => {
        this.badPages.push(event)
        return {}
      },
      'cs.badReplica': () => ({}),
      'cs.merged': ({ replicas }) => {
        this.merged.push(...replicas)
        return {}
      },
    })
  }

  known(server: number): Known {
    const known = this.servers.get(server)
    assert.ok(known !== undefined)
    return known
  }
}

async function startMaster(): Promise<{ master: Master; port: number }> {
  const master = new Master()
  await master.server.listen({ host: '127.0.0.1', port: 0 })
  cleanups.push(() => master.server.close('test ends'))
  return { master, port: master.server.address.port - 1 }
}

async function startServer(name: string, basePort: number, make = true): Promise<ChunkServer> {
  const directory = mkdtempSync(join(root, name))
  if (make) {
    const disk = new NodeDisk(directory)
    await createStore({ disk, clock, random, clusterName: 'test', tier: 0, checksums: true })
  }
  return startAt(directory, basePort)
}

async function startAt(directory: string, basePort: number): Promise<ChunkServer> {
  const server = new ChunkServer({
    disk: new NodeDisk(directory),
    clock,
    random,
    network,
    logger,
    clusterName: 'test',
    metadataAddresses: [
      { host: '127.0.0.1', port: 1 },
      { host: '127.0.0.1', port: basePort },
    ],
    listen: { host: '127.0.0.1', port: 0 },
    hostId: 'a1',
    hostName: 'test',
    location: '',
  })
  await server.start()
  cleanups.push(() => server.close())
  return server
}

async function connect(server: ChunkServer, session = 7): Promise<Peer> {
  const { address } = server
  assert.ok(address !== null)
  const dialer = new Dialer({
    network,
    clock,
    random,
    logger,
    pool,
    address,
    identity: () => identity('client', session),
  }).start()
  cleanups.push(() => Promise.resolve(dialer.close('test ends')))
  return dialer.ready(5000)
}

function exchange(
  peer: Peer,
  request: DataRequest,
  content: Buffer | null,
): Promise<{ code: string; payload: Buffer | null }> {
  const table = content === null ? null : pageChecksums(content, request.offset)
  return new Promise((resolve, reject) => {
    peer.sendData(request, table, content, 5000, (error, answer, _table, payload) => {
      if (error !== null) return reject(error)
      resolve({ code: answer?.code ?? '?', payload: payload === null ? null : Buffer.from(payload) })
      if (payload !== null) pool.release(payload)
    })
  })
}

test('register, create, write, flush, join over sockets, report, restart', async () => {
  const { master, port } = await startMaster()
  const first = await startServer('one', port)
  const second = await startServer('two', port)
  await until(
    'both registered',
    () => [...master.servers.values()].filter((known) => known.reported).length === 2,
  )
  const firstId = first.store?.superblock.server ?? 0
  const secondId = second.store?.superblock.server ?? 0
  assert.deepEqual(new Set([firstId, secondId]), new Set([1025, 1026]))
  await until('heartbeats', () => master.known(firstId).heartbeats > 1)

  const order = { chunk: 9, version: 1, lease: 5 }
  await master.known(firstId).caller.call('replica.create', { replicas: [{ ...order, role: 'in-sync' }] })
  const peer = await connect(first)
  const content = pattern(1, MIB)
  const fields = { chunk: 9, lease: 5, offset: 4096 * 3, length: MIB }
  assert.equal((await exchange(peer, dataRequest(DataOp.write, fields), content)).code, '')
  const incarnation = first.store?.incarnation ?? 0
  assert.equal((await exchange(peer, dataRequest(DataOp.flush, { chunk: 9, incarnation }), null)).code, '')
  const answer = await exchange(peer, dataRequest(DataOp.read, { ...fields, lease: 0 }), null)
  assert.ok(answer.payload?.equals(content))

  await master.known(secondId).caller.call('replica.create', { replicas: [{ ...order, role: 'joining' }] })
  const source = { server: firstId, host: '127.0.0.1', port: first.address?.port ?? 0 }
  await master
    .known(secondId)
    .caller.call('replica.join', { chunk: 9, version: 1, attempt: 4, sources: [source] })
  await until('joined', () => master.joined.length === 1)
  assert.deepEqual(master.joined[0], { chunk: 9, version: 1, attempt: 4, bytesPulled: MIB, lostPages: 0 })
  await master.known(secondId).caller.call('replica.promote', { chunk: 9, version: 1 })
  const other = await connect(second)
  const copy = await exchange(other, dataRequest(DataOp.read, { ...fields, lease: 0 }), null)
  assert.ok(copy.payload?.equals(content))
  const verify = (id: number): Promise<{ digests: number[] }> =>
    master.known(id).caller.call('replica.verify', { chunk: 9, version: 1, depth: 'pages' })
  assert.deepEqual((await verify(firstId)).digests, (await verify(secondId)).digests)

  const { disk } = first.store ?? assert.fail('running')
  assert.ok(disk instanceof NodeDisk)
  await first.close()
  master.servers.delete(firstId)
  const again = await startAt(disk.root, port)
  await until('registered again', () => master.servers.get(firstId)?.reported === true)
  const state = { unclean: false, crashed: false, restarted: false, damaged: false }
  assert.deepEqual(master.known(firstId).replicas, [
    { chunk: 9, version: 1, role: 'in-sync', lease: 5, ...state },
  ])
  assert.equal(master.known(firstId).registration.uncleanStop, 'none')
  assert.ok((again.store?.incarnation ?? 0) > incarnation)
})

test('overlays over sockets: create, report, refuse to delete what they read through, merge, say so', async () => {
  const { master, port } = await startMaster()
  const server = await startServer('overlays', port)
  await until('registered', () => [...master.servers.values()].some((known) => known.reported))
  const [id = 0] = [...master.servers.keys()]
  const order = { role: 'in-sync' as const, lease: 5 }
  const { caller } = master.known(id)
  await caller.call('replica.create', { replicas: [{ ...order, chunk: 3, version: 1 }] })
  const peer = await connect(server)
  const content = pattern(1, MIB)
  const fields = { chunk: 3, lease: 5, offset: 4096, length: MIB }
  assert.equal((await exchange(peer, dataRequest(DataOp.write, fields), content)).code, '')
  const incarnation = server.store?.incarnation ?? 0
  assert.equal((await exchange(peer, dataRequest(DataOp.flush, { chunk: 3, incarnation }), null)).code, '')
  const children = [
    { ...order, chunk: 4, version: 2, parent: 3 },
    { ...order, chunk: 5, version: 2, parent: 99 },
  ]
  const created = await caller.call('replica.create', { replicas: children })
  assert.deepEqual(created.failed, [{ chunk: 5, code: 'NO_REPLICA' }])
  assert.equal((await exchange(peer, dataRequest(DataOp.write, fields), content)).code, 'HAS_OVERLAY')
  const read = dataRequest(DataOp.read, { ...fields, chunk: 4, version: 2 })
  assert.ok((await exchange(peer, read, null)).payload?.equals(content))

  const { disk } = server.store ?? assert.fail('running')
  assert.ok(disk instanceof NodeDisk)
  await server.close()
  master.servers.delete(id)
  const again = await startAt(disk.root, port)
  await until('registered again', () => master.servers.get(id)?.reported === true)
  const reported = master.known(id).replicas.map(({ chunk, parent = 0 }) => [chunk, parent])
  assert.deepEqual(
    reported.toSorted((a, b) => (a[0] ?? 0) - (b[0] ?? 0)),
    [
      [3, 0],
      [4, 3],
    ],
  )
  const orders = master.known(id).caller
  const refusal = await orders.call('replica.delete', { replicas: [{ chunk: 3, versionMax: 9 }] })
  const codes = [{ chunk: 3, code: 'HAS_OVERLAY' }]
  assert.deepEqual(refusal, { deleted: [], refused: [3], codes })
  await until('merged', () => master.merged.length > 0)
  assert.deepEqual(master.merged, [{ chunk: 4, parent: 0 }])
  const refused = await orders.call('replica.merge', {
    replicas: [
      { chunk: 4, parent: 3 },
      { chunk: 8, parent: 3 },
    ],
  })
  assert.deepEqual(refused, { refused: [{ chunk: 8, code: 'NO_REPLICA' }] })
  await until('told again', () => master.merged.length > 1)
  const deletion = await orders.call('replica.delete', { replicas: [{ chunk: 3, versionMax: 9 }] })
  assert.deepEqual(deletion.deleted, [3])
  const reader = await connect(again)
  assert.ok((await exchange(reader, read, null)).payload?.equals(content))
})

test('rule E5: drain closes the earlier connection of a session and waits for its requests', async () => {
  const { master, port } = await startMaster()
  const server = await startServer('drain', port)
  await until('registered', () => [...master.servers.values()].some((known) => known.reported))
  const [id] = [...master.servers.keys()]
  await master
    .known(id ?? 0)
    .caller.call('replica.create', { replicas: [{ chunk: 1, version: 1, role: 'in-sync', lease: 10 }] })
  const old = await connect(server, 7)
  const stranger = await connect(server, 8)
  let oldClosed = ''
  old.onClosed((reason) => {
    oldClosed = reason
  })
  const fresh = await connect(server, 7)
  const answer = await fresh.caller(chunkServerPortMethods).call('cs.drain', { session: 7 })
  assert.equal(answer.incarnation, server.store?.incarnation)
  await until('the old connection is closed', () => oldClosed !== '')
  const fields = dataRequest(DataOp.write, { offset: 0, length: PAGE_SIZE_BYTES })
  assert.equal((await exchange(fresh, fields, pattern(1, PAGE_SIZE_BYTES))).code, '')
  assert.equal((await exchange(stranger, { ...fields, session: 8 }, pattern(1, PAGE_SIZE_BYTES))).code, '')
})

test('nothing is served before registration; the wrong path says R and keeps trying', async () => {
  const lonely = await startServer('lonely', 2)
  const peer = await connect(lonely)
  assert.equal((await exchange(peer, dataRequest(DataOp.read, { length: 10 }), null)).code, 'STARTING')
  const invalid = await startServer('invalid', 2, false)
  assert.equal(invalid.state, 'invalid')
  assert.equal(invalid.flags, 'R')
  assert.match(invalid.detail, /no chunk store/)
})
