/** For the tests of this room: a store on a simulated disk, and data requests without a wire. */
import assert from 'node:assert/strict'
import { BufferPool } from '../base/buffer-pool.ts'
import { CairnError } from '../base/errors.ts'
import { Prng } from '../base/prng.ts'
import { silentLogger } from '../platform/logger.ts'
import { SeededRandom } from './simulation/seeded-random.ts'
import { SimulatedClock } from './simulation/simulated-clock.ts'
import { SimulatedDisk } from './simulation/simulated-disk.ts'
import { pageChecksums } from '../wire/checksum.ts'
import { DataFlag, DataOp, type DataRequest } from '../wire/data.ts'
import type { ChunkStore } from '../chunkserver/store/chunk-store.ts'
import {
  type PageSource,
  RemoteSource,
  type RawRequest,
  type SourceAddress,
} from '../chunkserver/repair/page-source.ts'
import { ReplicaControl } from '../chunkserver/store/replica-control.ts'
import { Role } from '../chunkserver/format/replica-state.ts'
import { createStore, openStore } from '../chunkserver/store/store-open.ts'

export interface Answer {
  readonly code: string
  readonly flags: number
  readonly version: number
  readonly incarnation: number
  readonly crashes: number
  readonly table: Buffer
  readonly payload: Buffer | null
}

export interface Rig {
  readonly disk: SimulatedDisk
  readonly clock: SimulatedClock
  readonly pool: BufferPool
  store: ChunkStore
  control: ReplicaControl
}

export async function makeRig(
  seed: number,
  options: { checksums?: boolean; capacityBytes?: number } = {},
): Promise<Rig> {
  const clock = new SimulatedClock()
  const capacity = options.capacityBytes === undefined ? {} : { capacityBytes: options.capacityBytes }
  const disk = new SimulatedDisk({ seed, clock, ...capacity })
  await createStore({
    disk,
    clock,
    random: new SeededRandom(seed),
    clusterName: 'test',
    tier: 0,
    checksums: options.checksums ?? true,
  })
  return openRig(disk, clock)
}

export async function openRig(disk: SimulatedDisk, clock = new SimulatedClock()): Promise<Rig> {
  const pool = new BufferPool({ poison: true, retainedBytesMax: 1 << 20 })
  const store = await openStore({ disk, clock, logger: silentLogger, pool, clusterName: 'test' })
  return { disk, clock, pool, store, control: new ReplicaControl(store) }
}

/** A replica of chunk 1 or another, in sync at version 1 under lease 10. */
export async function createReplica(
  rig: Rig,
  chunk = 1,
  role: Role = Role.inSync,
  version = 1,
): Promise<void> {
  const code = await rig.clock.settled(rig.control.create({ chunk, version, role, lease: 10 }))
  if (code !== '') throw new CairnError(code, 'create')
}

/** An overlay over a replica of the rig, in sync at a version above it. Its code. */
export function createOverlay(
  rig: Rig,
  chunk: number,
  parent: number,
  version = chunk,
  role: Role = Role.inSync,
): Promise<string> {
  return rig.clock.settled(rig.control.create({ chunk, parent, version, role, lease: 10 }))
}

export function dataRequest(op: DataOp, fields: Partial<DataRequest>): DataRequest {
  return {
    op,
    flags: 0,
    version: 1,
    chunk: 1,
    lease: 10,
    session: 7,
    incarnation: 0,
    offset: 0,
    length: 0,
    ...fields,
  }
}

/** Sends and does not wait; the promise stays open when the disk stands still. */
export function send(
  rig: Rig,
  request: DataRequest,
  content: Buffer | null = null,
  table?: Buffer,
): Promise<Answer> {
  const sums = content === null ? new Uint32Array() : pageChecksums(content, request.offset)
  const bytes = table ?? Buffer.from(sums.buffer, sums.byteOffset, sums.byteLength)
  let owned: Buffer | null = null
  if (content !== null) {
    owned = rig.pool.acquire(content.length)
    content.copy(owned)
  }
  return new Promise((resolve) => {
    rig.store.submit(
      request,
      bytes,
      owned,
      {
        respond(answer, borrowedTable, ownedPayload) {
          const tableCopy =
            borrowedTable === null
              ? Buffer.alloc(0)
              : Buffer.from(
                  Buffer.from(borrowedTable.buffer, borrowedTable.byteOffset, borrowedTable.byteLength),
                )
          const payload = ownedPayload === null ? null : Buffer.from(ownedPayload)
          if (ownedPayload !== null) rig.pool.release(ownedPayload)
          const { code, flags, version, incarnation, crashes } = answer
          resolve({ code, flags, version, incarnation, crashes, table: tableCopy, payload })
        },
      },
      null,
    )
  })
}

export function ask(rig: Rig, request: DataRequest, content: Buffer | null = null): Promise<Answer> {
  return rig.clock.settled(send(rig, request, content))
}

export function write(
  rig: Rig,
  offset: number,
  content: Buffer,
  fields: Partial<DataRequest> = {},
): Promise<Answer> {
  return ask(rig, dataRequest(DataOp.write, { offset, length: content.length, ...fields }), content)
}

export function flush(rig: Rig, fields: Partial<DataRequest> = {}): Promise<Answer> {
  return ask(rig, dataRequest(DataOp.flush, { incarnation: rig.store.incarnation, ...fields }))
}

/** The bytes, or the code. */
export async function read(
  rig: Rig,
  offset: number,
  length: number,
  fields: Partial<DataRequest> = {},
): Promise<Buffer | string> {
  const answer = await ask(rig, dataRequest(DataOp.read, { offset, length, ...fields }))
  if (answer.code !== '') return answer.code
  if ((answer.flags & DataFlag.zeros) !== 0) return Buffer.alloc(length)
  return answer.payload ?? 'no payload'
}

export function pattern(seed: number, length: number): Buffer {
  const prng = new Prng(seed)
  const bytes = Buffer.alloc(length)
  for (let at = 0; at + 4 <= length; at += 4) bytes.writeUInt32LE(prng.uint32(), at)
  return bytes
}

/** A store in the same process as a source. */
export function sourceOf(
  rig: Rig,
  receiver: Rig,
  onSend: (op: DataOp) => void = () => undefined,
): PageSource {
  const request: RawRequest = (dataRequestToSend, callback) => {
    onSend(dataRequestToSend.op)
    rig.store.submit(
      dataRequestToSend,
      Buffer.alloc(0),
      null,
      {
        respond(answer, table, payload) {
          const copy =
            table === null ? null : Buffer.from(Buffer.from(table.buffer, table.byteOffset, table.byteLength))
          let owned: Buffer | null = null
          if (payload !== null) {
            owned = receiver.pool.acquire(payload.length)
            payload.copy(owned)
            rig.pool.release(payload)
          }
          callback(null, answer.code, copy, owned)
        },
      },
      null,
    )
  }
  return new RemoteSource(request, receiver.pool)
}

/** Of a source that the test itself opens: only the number counts. */
export const sourceAddress = (server: number): SourceAddress => ({ server, host: 'test', port: server })

/** The order of a new epoch for the one chunk of the rig. */
export async function persist(rig: Rig, version: number, role: Role): Promise<void> {
  const held = await rig.clock.settled(rig.control.persist({ chunk: 1, version, role, lease: 11 }))
  assert.deepEqual(held, { version, code: '' })
}

/** Several clocks in step. */
export async function settleAll(rigs: readonly Rig[], until: () => boolean): Promise<void> {
  for (let round = 0; round < 2000 && !until(); round++) for (const rig of rigs) await rig.clock.advance(1)
  assert.ok(until(), 'settled in time')
}
