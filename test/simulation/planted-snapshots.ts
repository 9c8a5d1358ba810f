/** The rules for snapshots, one at a time, taken out: S1 to S5. */
import { RegionMerge } from '../../core/chunkserver/repair/merge-region.ts'
import { PageState } from '../../core/chunkserver/format/region-records.ts'
import { Replica } from '../../core/chunkserver/replica/replica.ts'
import { ChunkStore } from '../../core/chunkserver/store/chunk-store.ts'
import { ZeroOperation } from '../../core/chunkserver/store/zero-operation.ts'
import type { ChunkState } from '../../core/metadata/chunks/handlers.ts'
import { ChunkSharing } from '../../core/metadata/chunks/chunk-sharing.ts'
import { snapshotHandlers } from '../../core/metadata/snapshots/handlers.ts'
import { Pauses } from '../../core/metadata/snapshots/pauses.ts'
import { type CommandResult, valueOf } from '../../core/metadata/state/result.ts'
import { PAGES_PER_REGION } from '../../core/base/units.ts'
import { type PlantedBug, replaceMethod } from './planted.ts'

const shape = { snapshotPercent: 30 }

interface Context {
  readonly state: ChunkState
}

/** To it nobody has a lease, so that nobody has an intent. */
function withoutLeases(state: ChunkState): ChunkState {
  return new Proxy(state, {
    get(target, key) {
      if (key === 'leaseByInode') return new Map()
      const value: unknown = Reflect.get(target, key, target)
      return typeof value === 'function' ? (value.bind(target) as unknown) : value
    },
  })
}

function several(...removals: (() => void)[]): { options: Record<string, never>; remove(): void } {
  const remove = (): void => {
    for (const one of removals) one()
  }
  return { options: {}, remove }
}

function replaceGetter(target: object, name: string, get: () => unknown): () => void {
  const original = Object.getOwnPropertyDescriptor(target, name)
  Object.defineProperty(target, name, { configurable: true, get })
  return () => void Object.defineProperty(target, name, original as PropertyDescriptor)
}

export const plantedSnapshotRules: readonly PlantedBug[] = [
  {
    key: 'unpaused-writer',
    name: 'a snapshot is made while the writer has its intents',
    rule: 'S1',
    profile: { kinds: ['slow-network'], shape },
    seedsToFind: 8,
    plant: () =>
      several(
        replaceMethod(
          snapshotHandlers,
          'snapshot.create',
          (original) => (context: Context, command: unknown) =>
            original({ ...context, state: withoutLeases(context.state) }, command),
        ),
        replaceMethod(
          Pauses.prototype,
          'whilePaused',
          () => async (_inode: number, propose: () => Promise<CommandResult<unknown>>) =>
            valueOf(await propose()),
        ),
      ),
  },
  {
    key: 'absent-zeros',
    name: 'zeros make a page of an overlay absent',
    rule: 'S2',
    profile: { kinds: ['cut-connections'], shape },
    seedsToFind: 8,
    plant: () =>
      several(
        replaceMethod(
          ZeroOperation.prototype,
          'setPage',
          (original) =>
            function (this: { current: Replica }, page: number, state: PageState, checksum: number) {
              const isHole = state === PageState.hole && this.current.parent !== null
              original.call(this, page, isHole ? PageState.absent : state, checksum)
            },
        ),
      ),
  },
  {
    key: 'absent-damage',
    name: 'a page of an overlay that does not verify counts as absent',
    rule: 'S2',
    profile: { kinds: ['bit-rot'], faultPauseMs: 300, shape },
    seedsToFind: 12,
    plant: () =>
      several(
        replaceMethod(
          ChunkStore.prototype,
          'markBad',
          (original) =>
            function (this: ChunkStore, replica: Replica, pages: number[], reason: string) {
              original.call(this, replica, pages, reason)
              if (replica.parent === null) return
              for (const page of pages)
                replica
                  .region(Math.floor(page / PAGES_PER_REGION))
                  ?.setState(page % PAGES_PER_REGION, PageState.absent)
            },
        ),
      ),
  },
  {
    key: 'dropped-parent',
    name: 'what an overlay reads through is deleted',
    rule: 'S3',
    profile: { kinds: ['cs-crash', 'partition-cs-mds'], shape },
    showsAsHang: true,
    seedsToFind: 8,
    plant: () =>
      several(
        replaceMethod(ChunkSharing.prototype, 'children', () => () => undefined),
        replaceGetter(Replica.prototype, 'isFrozen', () => false),
      ),
  },
  {
    key: 'merged-over',
    name: 'a merge replaces what was written since',
    rule: 'S5',
    profile: { kinds: ['cs-crash'], shape },
    seedsToFind: 8,
    plant: () => several(replaceMethod(RegionMerge.prototype, 'isAbsent', () => () => true)),
  },
]
