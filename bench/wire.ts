/**
 * What the wire itself costs: one client and one server process on loopback, writes with checksums that
 * the server verifies and puts into a file (page cache), and reads of the same. Prints operations and
 * bytes a second and the processor time of both sides for one operation.
 *
 *   node bench/wire.ts [seconds a workload]
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { BufferPool } from '../core/base/buffer-pool.ts'
import { KIB, MIB } from '../core/base/units.ts'
import { silentLogger } from '../core/platform/logger.ts'
import { NodeClock } from '../core/platform/node/clock.ts'
import { NodeDisk } from '../core/platform/node/disk.ts'
import { NodeNetwork } from '../core/platform/node/network.ts'
import { nodeRandom } from '../core/platform/node/random.ts'
import { fillPageChecksums, touchedPageCount, verifyPageChecksums } from '../core/wire/checksum.ts'
import { DataOp } from '../core/wire/data.ts'
import { emptyDataAnswer, emptyDataRequest } from '../core/wire/data-codec.ts'
import { Dialer } from '../core/wire/dialer.ts'
import { chunkServerPortMethods } from '../core/wire/messages/chunk.ts'
import { WireServer } from '../core/wire/server.ts'
import type { Peer } from '../core/wire/types.ts'

const FILE_BYTES = 64 * MIB
const identity = (role: string) => () => ({
  role,
  clusterName: 'bench',
  clusterUuid: '',
  session: 0,
  name: role,
})
const platform = { clock: new NodeClock(), network: new NodeNetwork(), logger: silentLogger }

interface Workload {
  readonly name: string
  readonly op: DataOp
  readonly sizeBytes: number
  readonly depth: number
}
const workloads: readonly Workload[] = [
  { name: '4 KiB writes, depth 32', op: DataOp.write, sizeBytes: 4 * KIB, depth: 32 },
  { name: '4 KiB writes, depth 1', op: DataOp.write, sizeBytes: 4 * KIB, depth: 1 },
  { name: '1 MiB writes, depth 8', op: DataOp.write, sizeBytes: MIB, depth: 8 },
  { name: '4 KiB reads, depth 32', op: DataOp.read, sizeBytes: 4 * KIB, depth: 32 },
  { name: '1 MiB reads, depth 8', op: DataOp.read, sizeBytes: MIB, depth: 8 },
]

async function serve(directory: string): Promise<void> {
  const pool = new BufferPool()
  const file = new NodeDisk(directory).open('data', { create: true })
  file.truncate(FILE_BYTES)
  const table = new Uint32Array(touchedPageCount(0, MIB))
  const onPeer = (peer: Peer): void => {
    peer.serve(chunkServerPortMethods, {
      'cs.drain': () => {
        const { user, system } = process.cpuUsage()
        return { incarnation: user + system }
      },
      'cs.shutdown': () => ({}),
    })
    const answer = emptyDataAnswer()
    peer.onData((request, borrowedTable, payload, responder) => {
      const { op, offset, length } = request
      answer.op = op
      answer.length = length
      answer.code = ''
      if (op === DataOp.read) {
        const buffer = pool.acquire(length)
        file.read(buffer, offset, () => {
          const count = fillPageChecksums(buffer, offset, table)
          responder.respond(answer, table.subarray(0, count), buffer)
        })
        return
      }
      if (payload === null || verifyPageChecksums(payload, offset, borrowedTable) >= 0) {
        answer.code = 'FRAME_CHECKSUM'
        responder.respond(answer, null, payload)
        return
      }
      file.write([payload], offset, (error) => {
        pool.release(payload)
        answer.code = error === null ? '' : 'DISK_FAILED'
        responder.respond(answer, null, null)
      })
    })
  }
  const server = new WireServer({ ...platform, pool, identity: identity('cs'), onPeer })
  await server.listen({ host: '127.0.0.1', port: 0 })
  process.stdout.write(`${server.address.port}\n`)
  process.stdin.on('end', () => process.exit(0)).resume()
}

/** Keeps `depth` requests in flight until the time is over; resolves with their number. */
function drive(peer: Peer, pool: BufferPool, workload: Workload, durationMs: number): Promise<number> {
  const { op, sizeBytes, depth } = workload
  const payload = Buffer.alloc(sizeBytes, 7)
  const table = new Uint32Array(touchedPageCount(0, sizeBytes))
  const request = { ...emptyDataRequest(), op, length: sizeBytes }
  const endMs = performance.now() + durationMs
  const positionCount = FILE_BYTES / sizeBytes
  let position = 0
  let done = 0
  let inFlight = 0
  return new Promise((resolve, reject) => {
    const next = (): void => {
      inFlight++
      position = (position + 1) % positionCount
      request.offset = position * sizeBytes
      if (op === DataOp.write) {
        fillPageChecksums(payload, request.offset, table)
        peer.sendData(request, table, payload, 10_000, finished)
      } else peer.sendData(request, null, null, 10_000, finished)
    }
    const finished: Parameters<Peer['sendData']>[4] = (error, answer, answerTable, answerPayload) => {
      inFlight--
      done++
      if (error !== null || answer?.code !== '') {
        reject(error ?? new Error(`answered ${answer?.code}`))
        return
      }
      if (answerPayload !== null && answerTable !== null) {
        const bad = verifyPageChecksums(answerPayload, 0, answerTable)
        pool.release(answerPayload)
        if (bad >= 0) {
          reject(new Error('an answer does not verify'))
          return
        }
      }
      if (performance.now() < endMs) next()
      else if (inFlight === 0) resolve(done)
    }
    for (let i = 0; i < depth; i++) next()
  })
}

async function measure(seconds: number): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'cairn-bench-wire-'))
  const child = spawn(process.execPath, [import.meta.filename, 'serve', directory], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  try {
    const port = await new Promise<number>((resolve) =>
      child.stdout.once('data', (text) => resolve(Number(text))),
    )
    const pool = new BufferPool()
    const address = { host: '127.0.0.1', port }
    const dialer = new Dialer({
      ...platform,
      random: nodeRandom,
      pool,
      address,
      identity: identity('client'),
    }).start()
    const peer = await dialer.ready(5000)
    const serverTime = async (): Promise<number> =>
      (await peer.caller(chunkServerPortMethods).call('cs.drain', { session: 0 })).incarnation
    for (const workload of workloads) {
      await drive(peer, pool, workload, 300)
      const serverBefore = await serverTime()
      const clientBefore = process.cpuUsage()
      const beganMs = performance.now()
      const count = await drive(peer, pool, workload, seconds * 1000)
      const elapsedMs = performance.now() - beganMs
      const client = process.cpuUsage(clientBefore)
      const serverMicroseconds = (await serverTime()) - serverBefore
      const rate = (count / elapsedMs) * 1000
      console.log(
        `${workload.name.padEnd(24)} ${rate.toFixed(0).padStart(8)} op/s ` +
          `${((rate * workload.sizeBytes) / 1e6).toFixed(0).padStart(6)} MB/s   ` +
          `client ${((client.user + client.system) / count).toFixed(1)} us/op, ` +
          `server ${(serverMicroseconds / count).toFixed(1)} us/op`,
      )
    }
    dialer.close('done')
  } finally {
    child.stdin.end()
    rmSync(directory, { recursive: true, force: true })
  }
}

if (process.argv[2] === 'serve') await serve(process.argv[3] ?? '.')
else await measure(Number(process.argv[2] ?? 3))
