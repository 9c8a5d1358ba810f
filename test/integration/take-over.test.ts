/**
 * Take-over on real processes (rule L8): a random writer with as many write intents as a lease may have is killed, and
 * another client goes on with its image. The first write is answered long before everything is reconciled, both in a
 * bounded time, and what travels to compare the replicas is a fraction of their page records.
 *
 * Runs alone: it measures time.
 */
import assert from 'node:assert/strict'
import fs from 'node:fs'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { CHUNK_SIZE_BYTES, PAGE_SIZE_BYTES } from '../../core/base/units.ts'
import type { Client } from '../../core/client/api.ts'
import { connect } from '../../core/client/connect.ts'
import { TestCluster, until } from './support/cluster.ts'
import {
  flush,
  type Image,
  openImage,
  pagesOf,
  roundOf,
  startRandomWriter,
  writePage,
} from './support/random-writer.ts'

const MEMBERS = ['mds1', 'mds2', 'mds3']
const SESSION_TIMEOUT = '2s'
/** On an idle machine about a tenth of them. */
const FIRST_WRITE_MS_MAX = 10_000
const RECONCILED_MS_MAX = 60_000
/** Page records of two members of one chunk are 384 KiB. */
const COMPARED_BYTES_PER_CHUNK_MAX = 24 * 1024
const READS_AT_ONCE = 32
const owner = { uid: 0, gid: 0 }

interface Usage {
  readonly sentBytes: number
  readonly processorMs: ReadonlyMap<string, number>
}

/** All ports of this file are those of its cluster. */
function sentOnLoopback(): number {
  const lines = fs.readFileSync('/proc/net/dev', 'utf8').split('\n')
  const counters = lines.find((line) => line.trim().startsWith('lo:'))?.split(':')[1]
  return Number(counters?.trim().split(/\s+/)[8] ?? 0)
}

/** Clock ticks of a hundredth of a second. */
function processorMsOf(pid: number): number {
  const fields = fs.readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) * 10
}

function read(image: Image, position: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    image.read(position, PAGE_SIZE_BYTES, (error, borrowedData) => {
      if (error === null) resolve(Buffer.from(borrowedData))
      else reject(error)
    })
  })
}

describe('take-over of a random writer', { timeout: 300_000 }, () => {
  const ends: (() => Promise<void>)[] = []
  let cluster: TestCluster
  let client: Client

  before(async () => {
    cluster = await TestCluster.start((end) => ends.push(end), {
      metadataServers: MEMBERS.length,
      chunkServers: 3,
      mount: false,
      replicas: '3:2',
      config: { 'mds.session_tout': SESSION_TIMEOUT },
    })
    const { metadataServers, keyFile } = cluster
    client = await connect({ cluster: 'demo', metadataServers, kind: 'test', name: 'heir' }, { keyFile })
    ends.push(() => client.close())
  })
  after(async () => {
    for (const end of ends.reverse()) await end()
  })

  /** When the masters said that a session has expired, the first time after `sinceMs`. */
  function expiredMs(sinceMs: number): number {
    for (const name of MEMBERS) {
      const log = fs.readFileSync(path.join(cluster.directory, 'log', `${name}.log`), 'utf8')
      const lines = log.split('\n').filter((line) => line.includes('session expired'))
      const atMs = lines.map((line) => Date.parse((JSON.parse(line) as { time: string }).time))
      const found = atMs.find((each) => each > sinceMs)
      if (found !== undefined) return found
    }
    throw new Error('no session has expired')
  }

  async function usage(): Promise<Usage> {
    const processes = (await cluster.processes()).filter(({ pid }) => pid !== null)
    const processorMs = processes.map(({ id, pid }) => [id, processorMsOf(pid ?? 0)] as const)
    return { sentBytes: sentOnLoopback(), processorMs: new Map(processorMs) }
  }

  async function verify(image: Image, positions: readonly number[], rounds: number): Promise<void> {
    const left = [...positions]
    const readSome = async (): Promise<void> => {
      for (let position = left.pop(); position !== undefined; position = left.pop()) {
        const seen = roundOf(await read(image, position))
        assert.ok(seen === rounds || seen === rounds + 1, `round ${seen} instead of ${rounds} at ${position}`)
      }
    }
    await Promise.all(Array.from({ length: READS_AT_ONCE }, readSome))
  }

  const images = [
    { name: 'a file of 256 chunks', chunks: 256, isPinned: false },
    // Rule L5: the lease is granted as a whole.
    { name: 'a block device of 1,024 chunks', chunks: 1024, isPinned: true },
  ]
  for (const { name, chunks, isPinned } of images) {
    it(name, async () => {
      const { metadataServers, keyFile } = cluster
      const { file } = await client.fileSystem.create(1, `image-${chunks}`, 0o600, owner, true)
      await file.truncate(chunks * CHUNK_SIZE_BYTES)
      file.close()
      const place = { path: `/image-${chunks}`, isPinned }
      const writer = startRandomWriter({ metadataServers, keyFile, chunks, ...place })
      await until('a round is flushed', () => writer.rounds > 0, 180_000)
      writer.child.kill('SIGKILL')
      const killedMs = Date.now()
      const { rounds } = writer
      const used = await usage()
      const image = await openImage(client, place)
      const positions = pagesOf(chunks)
      await writePage(image, positions[Math.floor(positions.length / 2)] ?? 0, rounds + 1)
      const firstWriteMs = Date.now()
      // Rule F4: it waits for everything that the dead writer left behind.
      await flush(image)
      const reconciledMs = Date.now()
      const after = await usage()
      const sinceMs = expiredMs(killedMs)
      const dirty = (await cluster.chunks()).filter(({ version }) => version > 1).length
      const processorMs = [...after.processorMs].map(
        ([id, ms]) => `${id} ${ms - (used.processorMs.get(id) ?? 0)}`,
      )
      console.log(
        `${name}: at least ${dirty} dirty; after the session expired: first write ${firstWriteMs - sinceMs} ms, ` +
          `all reconciled ${reconciledMs - sinceMs} ms; ${after.sentBytes - used.sentBytes} bytes sent; ` +
          `processor ms: ${processorMs.join(', ')}`,
      )
      assert.ok(firstWriteMs - sinceMs < FIRST_WRITE_MS_MAX, 'the first write does not wait for the others')
      assert.ok(reconciledMs - sinceMs < RECONCILED_MS_MAX, 'reconciled')
      assert.ok(after.sentBytes - used.sentBytes < chunks * COMPARED_BYTES_PER_CHUNK_MAX, 'bytes sent')
      await verify(image, positions, rounds)
      await image.close()
    })
  }
})
