/** Rules of data safety, one at a time, taken out: what the simulation makes of it. */
import { Replica } from '../../core/chunkserver/replica/replica.ts'
import { ZeroOperation } from '../../core/chunkserver/store/zero-operation.ts'
import { chunkHandlers } from '../../core/metadata/chunks/handlers.ts'
import { condemnReplicas } from '../../core/metadata/chunks/condemning.ts'
import type { ChunkState } from '../../core/metadata/chunks/handlers.ts'
import { type PlantedBug, replaceMethod } from './planted.ts'

interface Context {
  readonly state: ChunkState
}

/** A command of the metadata quorum is carried out in another way. */
function replaceCommand<P>(
  type: keyof typeof chunkHandlers,
  make: (original: (context: Context, command: P) => unknown) => (context: Context, command: P) => unknown,
): { readonly options: Record<string, never>; remove(): void } {
  const original = Reflect.get(chunkHandlers, type) as unknown as (context: Context, command: P) => unknown
  Reflect.set(chunkHandlers, type, make(original))
  return { options: {}, remove: () => void Reflect.set(chunkHandlers, type, original) }
}

export const plantedRules: readonly PlantedBug[] = [
  {
    key: 'accepted-rollback',
    name: 'a chunk server whose disk went back in time is let in',
    rule: 'B3',
    profile: { kinds: ['rolled-back-disk'], faultPauseMs: 3000 },
    seedsToFind: 8,
    plant: () =>
      replaceCommand<{ server: number; registration: number; marks?: number }>(
        'server.register',
        (original) => (context, command) => {
          const registration = context.state.servers.get(command.server)?.registration ?? command.registration
          const { marks: _marks, ...others } = command
          const result = original(context, { ...others, registration }) as { ok?: object }
          // nor does anybody wonder what it does not remember
          return 'ok' in result ? { ok: { ...result.ok, restarted: false } } : result
        },
      ),
  },
  {
    key: 'collected-replicas',
    name: 'replicas of a living chunk are collected',
    rule: 'G1',
    profile: { kinds: ['cs-crash', 'partition-cs-mds'] },
    showsAsHang: true,
    seedsToFind: 8,
    plant: () =>
      replaceCommand<{ epochs: readonly { chunk: number }[] }>(
        'epoch.activate',
        (original) => (context, command) => {
          const outcome = original(context, command)
          for (const { chunk } of command.epochs) {
            const row = context.state.chunks.get(chunk)
            if (row !== undefined) condemnReplicas(context.state, row)
          }
          return outcome
        },
      ),
  },
  {
    key: 'lost-size',
    name: 'the size that a dead writer left is not recovered',
    rule: 'F8',
    profile: { kinds: ['client-crash', 'isolate-client', 'partition-client-mds'] },
    seedsToFind: 12,
    plant: () =>
      replaceCommand<{ inode: number }>('file.recoverSize', () => (context, { inode }) => ({
        ok: { size: context.state.inodes.get(inode)?.size ?? 0 },
      })),
  },
  {
    key: 'kept-tail',
    name: 'a chunk server zeroes nothing',
    rule: 'T1',
    profile: { kinds: ['client-crash', 'cut-connections'] },
    seedsToFind: 8,
    plant: () => ({
      options: {},
      remove: replaceMethod(
        ZeroOperation.prototype,
        'onRegionsReady',
        () =>
          function (this: { answer(code: string): void }) {
            this.answer('')
          },
      ),
    }),
  },
  {
    key: 'unverified-region',
    name: 'what a crash left behind is not verified against its checksums',
    rule: 'J9',
    profile: { kinds: ['cs-power-loss', 'all-power-loss'], faultPauseMs: 1500 },
    seedsToFind: 12,
    plant: () => ({
      options: {},
      remove: replaceMethod(Replica.prototype, 'needsVerification', () => () => false),
    }),
  },
]
