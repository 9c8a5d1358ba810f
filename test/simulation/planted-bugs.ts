/**
 * Bugs planted on purpose, each a rule of the data-safety design taken out of the running code: wrapped
 * around it, or put in the place of one method; nothing in the production code knows. The simulation must
 * find each within a few seeds, else its oracle or its faults are blind there.
 */
import { FlushOperation } from '../../core/chunkserver/store/flush-operation.ts'
import { Operation } from '../../core/chunkserver/store/operation.ts'
import { Replica } from '../../core/chunkserver/replica/replica.ts'
import { createStore } from '../../core/chunkserver/store/store-open.ts'
import { connectOver } from '../../core/client/client.ts'
import type { DataLink, Transport } from '../../core/client/session/transport.ts'
import { WireTransport } from '../../core/client/session/wire-transport.ts'
import { ChunkTable } from '../../core/metadata/chunks/chunk-table.ts'
import { ServersView } from '../../core/metadata/control/servers/servers-view.ts'
import type { Clock } from '../../core/platform/clock.ts'
import { type DataAnswer, DataOp } from '../../core/wire/data.ts'
import { replaceMethod } from './planted.ts'
import type { PlantedBug } from './planted.ts'
import { plantedRules } from './planted-rules.ts'
import { plantedSnapshotRules } from './planted-snapshots.ts'

const nothing = (): void => {}

/** Answers writes to all chunk servers but the first at once, and sends them without looking at what comes back. */
class HastyTransport implements Transport {
  readonly #inner: WireTransport
  readonly #clock: Clock
  readonly connectMetadata: Transport['connectMetadata']
  readonly release: Transport['release']

  constructor(inner: WireTransport, clock: Clock) {
    this.#inner = inner
    this.#clock = clock
    this.connectMetadata = (...parameters) => inner.connectMetadata(...parameters)
    this.release = (payload) => inner.release(payload)
  }

  connectData(...[address, session, events, timeoutMs]: Parameters<Transport['connectData']>) {
    if (address.host.startsWith('cs1')) return this.#inner.connectData(address, session, events, timeoutMs)
    const onReady = (link: DataLink): void => events.onReady(hasty(link, this.#clock))
    return this.#inner.connectData(address, session, { ...events, onReady }, timeoutMs)
  }
}

function hasty(link: DataLink, clock: Clock): DataLink {
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
      // an answer before `sendData` returns would mean that nothing was sent
      clock.defer(() => callback(null, answer, Buffer.alloc(0), null))
    },
  }
}

/** Puts a row into the table of chunks, but not all of it. */
function damagedRows(damage: object): () => void {
  return replaceMethod(
    ChunkTable.prototype,
    'put',
    (original) =>
      function (this: ChunkTable, row: object) {
        original.call(this, { ...row, ...damage })
      },
  )
}

export const plantedBugs: readonly PlantedBug[] = [
  ...plantedRules,
  ...plantedSnapshotRules,
  {
    key: 'early-acknowledgement',
    name: 'a client acknowledges before all replicas have answered',
    rule: 'F3',
    profile: {
      kinds: ['stalled-link', 'cs-power-loss', 'partition-client-cs'],
      faultPauseMs: 500,
      faultsAtOnce: 3,
    },
    seedsToFind: 8,
    plant: () => ({
      options: {
        roles: {
          client: (options, platform) =>
            connectOver(
              options,
              platform,
              new HastyTransport(new WireTransport(options, platform), platform.clock),
            ),
        },
      },
      remove: nothing,
    }),
  },
  {
    key: 'unchecked-version',
    name: 'a chunk server does not check the version of an operation',
    rule: 'E3, E4',
    profile: { kinds: ['late-news'], faultPauseMs: 1500, faultsAtOnce: 1, offlineSeconds: 3 },
    seedsToFind: 20,
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
    key: 'forgotten-dirt',
    name: 'the metadata server forgets that a chunk is dirty by a dead lease',
    rule: 'J5',
    profile: { kinds: ['client-crash', 'isolate-client', 'partition-client-cs', 'slow-network'] },
    seedsToFind: 12,
    plant: () => ({ options: {}, remove: damagedRows({ dirtyDead: false }) }),
  },
  {
    key: 'dropped-intent',
    name: 'the metadata server drops the intent to write a chunk',
    rule: 'L7, J5',
    profile: { kinds: ['client-crash', 'isolate-client', 'partition-client-cs', 'slow-network'] },
    seedsToFind: 12,
    plant: () => ({ options: {}, remove: damagedRows({ intentLease: 0 }) }),
  },
  {
    key: 'lying-flush',
    name: 'a flush syncs nothing',
    rule: 'F1',
    profile: { kinds: ['all-power-loss', 'cs-power-loss'] },
    seedsToFind: 6,
    plant: () => ({
      options: {},
      remove: replaceMethod(
        FlushOperation.prototype,
        'run',
        () =>
          function (this: FlushOperation) {
            this.onSynced(null)
          },
      ),
    }),
  },
  {
    key: 'unverified-page',
    name: 'a chunk server serves a page that does not verify',
    rule: 'R1, P5',
    profile: { kinds: ['bit-rot'], faultPauseMs: 300 },
    seedsToFind: 12,
    plant: () => ({
      options: {
        roles: {
          makeChunkStore: async ({ disk, clock, random, clusterName }) =>
            void (await createStore({ disk, clock, random, clusterName, tier: 0, checksums: false })),
        },
      },
      remove: nothing,
    }),
  },
  {
    key: 'early-sync',
    name: 'a joining replica counts one page as pulled before it is',
    rule: 'J3, P3',
    profile: { kinds: ['cs-crash', 'partition-cs-mds'] },
    seedsToFind: 12,
    plant: () => ({
      options: {},
      remove: replaceMethod(
        Replica.prototype,
        'markGood',
        (original) =>
          function (this: Replica, page: number) {
            original.call(this, page)
            original.call(this, page + 1)
          },
      ),
    }),
  },
  {
    key: 'impatient-master',
    name: 'a new master goes on without chunk servers that it has not heard of yet',
    rule: 'F5, J3',
    profile: {
      kinds: ['first-server-dies'],
      faultPauseMs: 4000,
      faultsAtOnce: 1,
      shape: { metadataServerCount: 3 },
    },
    seedsToFind: 12,
    plant: () => ({
      options: {},
      remove: replaceMethod(ServersView.prototype, 'isAwaited', () => () => false),
    }),
  },
]
