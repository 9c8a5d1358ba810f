/**
 * Bugs planted on purpose, each a rule of the data-safety design taken out of the running code: wrapped
 * around it, or put in the place of one method; nothing in the production code knows. The simulation must
 * find each within a few seeds, else its oracle or its faults are blind there.
 */
import { Operation } from '../../core/chunkserver/operation.ts'
import { connectOver } from '../../core/client/client.ts'
import type { DataLink, Transport } from '../../core/client/transport.ts'
import { WireTransport } from '../../core/client/wire-transport.ts'
import { ChunkTable } from '../../core/metadata/chunks/chunk-table.ts'
import { SimulatedDisk } from '../../core/testing/simulated-disk.ts'
import { type DataAnswer, DataOp } from '../../core/wire/data.ts'
import type { FaultKind } from './faults.ts'
import type { RunOptions } from './simulation.ts'

export interface PlantedBug {
  readonly name: string
  /** The rule that is taken out. */
  readonly rule: string
  readonly kinds: readonly FaultKind[]
  /** Within how many seeds it must be found; many: not in every test run. */
  readonly seedsToFind: number
  /** Plants it; `remove` takes it out again. */
  plant(): { readonly options: Pick<RunOptions, 'roles' | 'makeDisk'>; remove(): void }
}

const nothing = (): void => {}

/** Replaces a method of a class until `remove`. */
function replaceMethod(
  target: object,
  name: string,
  make: (original: (...parameters: unknown[]) => unknown) => (this: never, ...parameters: never[]) => unknown,
): () => void {
  const original = Reflect.get(target, name) as (...parameters: unknown[]) => unknown
  Reflect.set(target, name, make(original))
  return () => void Reflect.set(target, name, original)
}

/** Answers writes to the third chunk server at once, and sends them without looking at what comes back. */
class HastyTransport implements Transport {
  readonly #inner: WireTransport
  readonly connectMetadata: Transport['connectMetadata']
  readonly release: Transport['release']

  constructor(inner: WireTransport) {
    this.#inner = inner
    this.connectMetadata = (...parameters) => inner.connectMetadata(...parameters)
    this.release = (payload) => inner.release(payload)
  }

  connectData(...[address, session, events, timeoutMs]: Parameters<Transport['connectData']>) {
    if (!address.host.startsWith('cs3')) return this.#inner.connectData(address, session, events, timeoutMs)
    const onReady = (link: DataLink): void => events.onReady(hasty(link))
    return this.#inner.connectData(address, session, { ...events, onReady }, timeoutMs)
  }
}

function hasty(link: DataLink): DataLink {
  let known: DataAnswer | null = null
  return {
    ...link,
    sendData(request, table, payload, timeoutMs, callback) {
      const promised = known
      if (request.op !== DataOp.write || promised === null) {
        link.sendData(request, table, payload, timeoutMs, (error, answer, answerTable, answerPayload) => {
          if (request.op === DataOp.write && answer?.code === '') known = { ...answer }
          callback(error, answer, answerTable, answerPayload)
        })
        return
      }
      const answer = { ...promised, version: request.version, offset: request.offset, length: request.length }
      // the caller may use its buffer again after the callback
      link.sendData(request, table, payload === null ? null : Buffer.from(payload), timeoutMs, nothing)
      callback(null, answer, Buffer.alloc(0), null)
    },
  }
}

class LyingDisk extends SimulatedDisk {
  override syncInode(): void {}
}

export const plantedBugs: readonly PlantedBug[] = [
  {
    name: 'a client acknowledges before all replicas have answered',
    rule: 'F3',
    kinds: ['cs-crash', 'cut-connections', 'partition-client-cs', 'slow-network'],
    seedsToFind: 80,
    plant: () => ({
      options: {
        roles: {
          client: (options, platform) =>
            connectOver(options, platform, new HastyTransport(new WireTransport(options, platform))),
        },
      },
      remove: nothing,
    }),
  },
  {
    name: 'a chunk server does not check the version of an operation',
    rule: 'E3, E4',
    kinds: ['partition-client-cs', 'partition-cs-mds', 'isolate-cs', 'cs-crash', 'isolate-client'],
    seedsToFind: 400,
    plant: () => ({
      options: {},
      remove: replaceMethod(
        Operation.prototype,
        'checkVersion',
        (original) =>
          function (this: { request: { version: number }; replica: { state: { version: number } } | null }) {
            if (this.replica !== null) this.request.version = this.replica.state.version
            return original.call(this)
          },
      ),
    }),
  },
  {
    name: 'the metadata server forgets that a chunk is dirty by a dead lease',
    rule: 'J5',
    kinds: ['client-crash', 'isolate-client', 'partition-client-cs', 'slow-network'],
    seedsToFind: 12,
    plant: () => ({
      options: {},
      remove: replaceMethod(
        ChunkTable.prototype,
        'put',
        (original) =>
          function (this: ChunkTable, row: { dirtyDead: boolean }) {
            original.call(this, { ...row, dirtyDead: false })
          },
      ),
    }),
  },
  {
    name: 'a flush syncs nothing',
    rule: 'F1, F7',
    kinds: ['all-power-loss', 'cs-power-loss'],
    seedsToFind: 6,
    plant: () => ({
      options: { makeDisk: (seed, clock) => new LyingDisk({ seed, clock }) },
      remove: nothing,
    }),
  },
]
