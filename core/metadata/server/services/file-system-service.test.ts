// Proves the namespace methods as a session sees them: mutations and questions through a real log, open files
// that outlive their names, repeated creates that open once, and other sessions told what changed.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { CairnError } from '../../../base/errors.ts'
import type { Clock } from '../../../platform/clock.ts'
import { SimulatedStore, SimulatedStoreContents } from '../../../testing/simulation/simulated-store.ts'
import {
  SimulatedHardState,
  SimulatedHardStateContents,
} from '../../../testing/simulation/simulated-hard-state.ts'
import { RaftLog } from '../../quorum/raft-log.ts'
import { testLogOptions } from '../../quorum/test-log.ts'
import { NamespaceBench } from '../../namespace/namespace-bench.ts'
import { CacheInvalidator, type InvalidateParams, STALE_ITEMS_MAX } from './cache-invalidator.ts'
import { fileSystemHandlers } from './file-system-service.ts'
import { OpenFiles } from './open-files.ts'
import { COLLECT_CHUNKS_MAX, OrphanCollector } from '../orphan-collector.ts'

const turn = () => new Promise<void>((resolve) => void setImmediate(resolve))

class Room {
  readonly timers: (() => void)[] = []
  readonly clock: Clock = {
    nowMs: () => 0,
    bootMs: () => 0,
    wall: () => ({ seconds: 1_000, nanoseconds: 5 }),
    setTimer: (_delayMs, callback) => {
      this.timers.push(callback)
      return { cancel: () => undefined }
    },
    defer: (callback) => void setImmediate(callback),
  }
  readonly bench = new NamespaceBench({ empty: true, withSessions: true })
  private became: () => void = () => {}
  private readonly isMaster = new Promise<void>((resolve) => (this.became = resolve))
  readonly log = new RaftLog(
    testLogOptions({
      store: new SimulatedStore(new SimulatedStoreContents()),
      hardState: new SimulatedHardState(new SimulatedHardStateContents()),
      machine: this.bench.machine,
      // A member alone needs no ticks.
      clock: { ...this.clock, setTimer: () => ({ cancel: () => undefined }) },
      onFatal: assert.fail,
      onMaster: () => this.became(),
    }),
  )
  readonly openFiles = new OpenFiles()
  readonly published: [number, number][] = []
  publishError: Error | undefined
  /** Set: publishing ends when a test says so. */
  publishing: Promise<void> | undefined
  readonly told: [number, InvalidateParams][] = []
  connected = [1, 2, 3]
  isQueueFull = false
  readonly invalidator = new CacheInvalidator(this.clock, {
    connectedSessions: () => this.connected,
    invalidate: (session, params) => {
      if (!this.isQueueFull) this.told.push([session, params])
      return !this.isQueueFull
    },
  })
  readonly handlers = fileSystemHandlers({
    state: this.bench.state,
    log: this.log,
    openFiles: this.openFiles,
    leases: {
      publish: (inode, session) => {
        this.published.push([inode, session])
        if (this.publishing !== undefined) return this.publishing
        return this.publishError === undefined ? Promise.resolve() : Promise.reject(this.publishError)
      },
    },
    space: {
      fileSystemSpace: (replicas) => ({
        totalBytes: 600 / replicas,
        freeBytes: 300 / replicas,
        availableBytes: 150 / replicas,
      }),
    },
  })
  readonly collector = new OrphanCollector(this.bench.state, this.log, this.openFiles)
  private sequence = 0

  static async start(): Promise<Room> {
    const room = new Room()
    await room.log.start()
    await room.isMaster
    for (const session of [1, 2, 3]) {
      await room.log.propose({ type: 'session.open', name: '', host: '', kind: '', secret: '' })
      room.openFiles.declare(session)
    }
    room.log.onApplied((entry, result) => room.invalidator.onApplied(entry, result))
    return room
  }

  mutation() {
    this.sequence += 1
    return { sequence: this.sequence, acknowledgedBelow: 0 }
  }

  create(session: number, name: string, mutation = this.mutation(), exclusive = true) {
    const what = { parent: 1, name, mode: 0o644, uid: 0, gid: 0, exclusive, lease: false }
    return this.handlers['fs.create'](session, { mutation, ...what })
  }
}

const hasCode = (code: string) => (error: unknown) => error instanceof CairnError && error.code === code

describe('methods', () => {
  test('a mutation answers with what a question then finds', async () => {
    const room = await Room.start()
    const { handlers } = room
    const made = await handlers['fs.mknod'](1, {
      mutation: room.mutation(),
      parent: 1,
      name: 'd',
      type: 'directory',
      mode: 0o700,
      uid: 3,
      gid: 4,
      device: 0,
    })
    assert.deepEqual(await handlers['fs.lookup'](2, { parent: 1, name: 'd' }), made)
    assert.deepEqual(await handlers['fs.resolve'](2, { path: '/d' }), made)
    const { inode } = made.attributes
    const value = Buffer.from([0, 255, 7])
    await handlers['fs.setxattr'](1, { mutation: room.mutation(), inode, name: 'user.a', value, mode: 'set' })
    assert.deepEqual((await handlers['fs.getxattr'](2, { inode, name: 'user.a' })).value, value)
    assert.deepEqual(await handlers['fs.listxattr'](2, { inode }), { names: ['user.a'] })
    const attributes = { replicasNormal: 3, failureDomain: 'disk' } as const
    await handlers['attr.set'](1, { mutation: room.mutation(), inode: 1, recursive: false, attributes })
    const placement = await handlers['attr.get'](2, { inode: 1 })
    assert.deepEqual(placement.effective, {
      replicasNormal: 3,
      replicasMinimum: 2,
      failureDomain: 'disk',
      tier: 0,
    })
    assert.equal((await handlers['fs.statfs'](1, {})).totalBytes, 200)
    assert.equal((await handlers['fs.statfs'](1, {})).files, 2)
  })

  test('refusals are errors with the code of the wire', async () => {
    const room = await Room.start()
    await room.create(1, 'a')
    await assert.rejects(async () => room.create(1, 'a'), hasCode('EEXIST'))
    await assert.rejects(async () => room.handlers['fs.getattr'](1, { inode: 9 }), hasCode('ESTALE'))
    await assert.rejects(
      async () => room.handlers['fs.open'](1, { inode: 9, truncate: false }),
      hasCode('ESTALE'),
    )
    await assert.rejects(async () => room.create(9, 'b'), hasCode('NO_SESSION'))
  })

  test('nothing is answered while the state loads', async () => {
    const room = new Room()
    await assert.rejects(async () => room.handlers['fs.getattr'](1, { inode: 1 }), hasCode('STARTING'))
    await assert.rejects(async () => room.create(1, 'a'), hasCode('STARTING'))
  })
})

describe('open files', () => {
  test('an unlinked file stays until the last session closed it', async () => {
    const room = await Room.start()
    const { inode } = (await room.create(1, 'a')).attributes
    await room.handlers['fs.open'](2, { inode, truncate: false })
    assert.deepEqual(room.published, [[inode, 2]])
    await room.handlers['fs.unlink'](1, { mutation: room.mutation(), parent: 1, name: 'a' })
    assert.equal(await room.collector.run(), 0)
    await room.handlers['fs.close'](1, { inodes: [inode] })
    assert.equal(await room.collector.run(), 0)
    assert.equal((await room.handlers['fs.getattr'](2, { inode })).attributes.links, 0)
    await room.handlers['fs.close'](2, { inodes: [inode] })
    assert.equal(await room.collector.run(), 1)
    assert.equal(room.bench.state.inodes.has(inode), false)
  })

  test('nothing is collected before every session said what it has open', async () => {
    const room = await Room.start()
    const { inode } = (await room.create(1, 'a')).attributes
    await room.handlers['fs.unlink'](1, { mutation: room.mutation(), parent: 1, name: 'a' })
    room.openFiles.endSession(1)
    assert.equal(await room.collector.run(), 0, 'session 1 lives but has not declared')
    room.openFiles.declare(1, [inode])
    assert.equal(await room.collector.run(), 0)
    room.openFiles.declare(1, [])
    assert.equal(await room.collector.run(), 1)
  })

  test('many chunks are collected by many commands, none of which holds the event loop for long', async () => {
    const room = await Room.start()
    room.bench.state.level.raiseTo(2)
    const counts = [3 * COLLECT_CHUNKS_MAX + 5, 400, 400, 400, 1]
    for (const [number, count] of counts.entries()) {
      const { inode } = (await room.create(1, `f${number}`)).attributes
      const indexes = Array.from({ length: count }, (_, index) => index)
      room.bench.mapChunks(inode, indexes)
      await room.handlers['fs.close'](1, { inodes: [inode] })
      await room.handlers['fs.unlink'](1, { mutation: room.mutation(), parent: 1, name: `f${number}` })
    }
    const before = room.bench.dropped.length
    const drops: number[] = []
    room.log.onApplied(() => void drops.push(room.bench.dropped.length))
    assert.equal(await room.collector.run(), counts.length)
    const steps = drops.map((dropped, number) => dropped - (drops[number - 1] ?? before))
    assert.ok(Math.max(...steps) <= COLLECT_CHUNKS_MAX, steps.join(' '))
    assert.equal(
      room.bench.dropped.length - before,
      counts.reduce((sum, count) => sum + count, 0),
    )
    assert.equal(room.bench.state.inodes.size, 1)
  })

  test('a repeated create opens once', async () => {
    const room = await Room.start()
    const mutation = room.mutation()
    const first = await room.create(1, 'a', mutation)
    assert.deepEqual(await room.create(1, 'a', mutation), first)
    await room.handlers['fs.close'](1, { inodes: [first.attributes.inode] })
    assert.equal(room.openFiles.isOpen(first.attributes.inode), false)
  })

  test('opening an existing file by create asks its writer for size and times', async () => {
    const room = await Room.start()
    const { inode } = (await room.create(1, 'a')).attributes
    const again = await room.create(2, 'a', room.mutation(), false)
    assert.equal(again.created, false)
    assert.deepEqual(room.published, [[inode, 2]])
  })

  test('an open that fails is not counted', async () => {
    const room = await Room.start()
    const { inode } = (await room.create(1, 'a')).attributes
    room.publishError = new CairnError('EBUSY', 'x')
    await assert.rejects(
      async () => room.handlers['fs.open'](2, { inode, truncate: false }),
      hasCode('EBUSY'),
    )
    assert.equal(room.openFiles.openCount(2), 0)
    const mutation = room.mutation()
    await assert.rejects(async () => room.create(2, 'a', mutation, false), hasCode('EBUSY'))
    assert.equal(room.openFiles.openCount(2), 0)
    room.publishError = undefined
    await room.create(2, 'a', mutation, false)
    assert.equal(room.openFiles.openCount(2), 1)
  })
})

test('an open that fails after the session came back takes nothing from what it said anew (T2)', async () => {
  const room = await Room.start()
  const { inode } = (await room.create(1, 'a')).attributes
  for (const method of ['open', 'create'] as const) {
    const { promise, reject } = Promise.withResolvers<void>()
    room.publishing = promise
    room.openFiles.declare(2)
    const mutation = room.mutation()
    const again = async () =>
      method === 'open'
        ? await room.handlers['fs.open'](2, { inode, truncate: false })
        : await room.create(2, 'a', mutation, false)
    const waiting = again()
    while (room.openFiles.openCount(2) === 0) await new Promise((resolve) => setImmediate(resolve))
    room.openFiles.declare(2, [inode])
    if (method === 'create') {
      room.publishing = undefined
      await again()
      await room.handlers['fs.close'](2, { inodes: [inode] })
    }
    reject(new CairnError('EBUSY', 'x'))
    await assert.rejects(waiting, hasCode('EBUSY'))
    assert.equal(room.openFiles.openCount(2), 1, method)
  }
})

test('a repeated create that succeeds keeps its open when the first one fails (T2)', async () => {
  const room = await Room.start()
  const { inode } = (await room.create(1, 'a')).attributes
  const mutation = room.mutation()
  const { promise, reject } = Promise.withResolvers<void>()
  room.publishing = promise
  const first = (async () => await room.create(2, 'a', mutation, false))()
  while (room.openFiles.openCount(2) === 0) await new Promise((resolve) => setImmediate(resolve))
  room.publishing = undefined
  await room.create(2, 'a', mutation, false)
  reject(new CairnError('EBUSY', 'x'))
  await assert.rejects(first, hasCode('EBUSY'))
  await room.handlers['fs.close'](1, { inodes: [inode] })
  assert.equal(room.openFiles.isOpen(inode), true)
})

describe('invalidation', () => {
  test('the others are told, the author is not', async () => {
    const room = await Room.start()
    await room.create(2, 'a')
    await turn()
    const params: InvalidateParams = { all: false, inodes: [1], entries: [{ parent: 1, name: 'a' }] }
    assert.deepEqual(room.told, [
      [1, params],
      [3, params],
    ])
  })

  test('a refused command tells nothing', async () => {
    const room = await Room.start()
    await room.create(2, 'a')
    await turn()
    room.told.length = 0
    await assert.rejects(async () => room.create(2, 'a'), hasCode('EEXIST'))
    await turn()
    assert.deepEqual(room.told, [])
  })

  test('more than the queue holds becomes "all"', async () => {
    const room = await Room.start()
    room.connected = [2]
    // In one turn; the log itself applies fewer.
    for (let inode = 1; inode <= STALE_ITEMS_MAX + 1; inode++) {
      const command = { type: 'file.recoverSize', inode, size: 1 } as const
      room.invalidator.onApplied({ command, wallSeconds: 1, wallNanoseconds: 0 }, { ok: { size: 1 } })
    }
    await turn()
    assert.deepEqual(room.told, [[2, { all: true, inodes: [], entries: [] }]])
  })

  test('a session that could not be told is told "all" later; one that resumes too', async () => {
    const room = await Room.start()
    room.connected = [2]
    room.isQueueFull = true
    await room.create(1, 'a')
    await turn()
    assert.deepEqual(room.told, [])
    room.isQueueFull = false
    room.timers.shift()?.()
    const all: InvalidateParams = { all: true, inodes: [], entries: [] }
    assert.deepEqual(room.told, [[2, all]])
    room.connected = [2, 3]
    room.invalidator.sessionResumed(3)
    await turn()
    assert.deepEqual(room.told[1], [3, all])
  })
})
