/** Rules that are one line of the code, taken out: the simulation finds each (`planted-line.ts`). */
import type { FaultKind } from './faults.ts'
import type { PlantedLine } from './planted-line.ts'
import { scriptedLines } from './scripted-lines.ts'

const powerLosses: readonly FaultKind[] = ['all-power-loss', 'cs-power-loss']
const deadWriters: readonly FaultKind[] = [
  'client-crash',
  'isolate-client',
  'partition-client-cs',
  'stalled-link',
]

const simulatedLines: readonly PlantedLine[] = [
  {
    key: 'stranded-replica',
    name: 'who was in sync in a pending epoch only counts as in sync',
    rule: 'E1',
    file: 'metadata/chunks/epochs.ts',
    line: 'const current = row.members.find((member)',
    becomes: 'const current = (row.pending ?? row).members.find((member)',
    found: {
      profile: {
        kinds: ['cs-power-loss', 'cs-crash', 'partition-cs-mds', 'slow-network'],
        faultPauseMs: 1000,
        faultsAtOnce: 3,
      },
      showsAsHang: true,
      seedsToFind: 12,
    },
  },
  {
    key: 'invented-replica',
    name: 'a chunk file that is missing reads as zeros',
    rule: 'E12',
    file: 'chunkserver/replica/replica.ts',
    line: 'return (this.state.flags & StateFlag.written) !== 0',
    becomes: 'return false',
    found: { profile: { kinds: ['lost-file'], faultPauseMs: 1500 }, seedsToFind: 12 },
  },
  {
    key: 'unsynced-join',
    name: 'a joining replica says that it is complete before it has synced',
    rule: 'F1',
    file: 'chunkserver/repair/joiner.ts',
    line: 'await syncReplica(this.#store, replica)\n',
    becomes: '\n',
    found: {
      profile: {
        kinds: ['one-survivor', 'cs-crash', 'partition-cs-mds'],
        faultPauseMs: 1000,
        faultsAtOnce: 2,
        offlineSeconds: 3,
        shape: { chunkServerCount: 3 },
      },
      seedsToFind: 12,
    },
  },
  {
    key: 'untold-loss',
    name: 'a flush succeeds although no replica held everything all the time',
    rule: 'F5',
    file: 'client/chunk/chunk-flusher.ts',
    line: 'const error = this.#intact ? null :',
    becomes: 'const error = this.#intact || true ? null :',
    found: { profile: { kinds: powerLosses, faultPauseMs: 1000, faultsAtOnce: 2 }, seedsToFind: 12 },
  },
  {
    key: 'nothing-adopted',
    name: 'a page that a power cut tore on all replicas is not adopted',
    rule: 'P1',
    file: 'chunkserver/repair/repairer.ts',
    line: 'else if (hasStopped && (await',
    becomes: 'else if (!hasStopped && (await',
    found: { profile: { kinds: ['all-power-loss'], faultPauseMs: 1000, faultsAtOnce: 1 }, seedsToFind: 12 },
  },
  {
    key: 'unstamped-comparison',
    name: 'a joining replica compares checksums without stamps',
    rule: 'P3',
    file: 'chunkserver/repair/compare-region.ts',
    line: '|| ours.stamps[index] !== theirs.stamp) return false',
    becomes: ') return false',
    found: {
      profile: {
        kinds: ['cs-crash', 'partition-cs-mds', 'client-crash'],
        faultPauseMs: 1000,
        faultsAtOnce: 3,
      },
      seedsToFind: 12,
    },
  },
  {
    key: 'missing-base',
    name: 'a partial write does not pull the page that the joiner lacks',
    rule: 'P4',
    file: 'chunkserver/store/write-operations.ts',
    line: 'if (!replica.isGood(page)) {',
    becomes: 'if (replica.deleted) {',
    found: {
      profile: {
        kinds: ['cs-crash', 'partition-cs-mds', 'partition-cs-cs', 'slow-network'],
        faultPauseMs: 700,
        faultsAtOnce: 4,
      },
      seedsToFind: 12,
    },
  },
  {
    key: 'lost-is-zero',
    name: 'page records that are gone read as holes',
    rule: 'P6',
    file: 'chunkserver/format/region-records.ts',
    line: 'const damaged = present || torn',
    becomes: 'const damaged = false',
    found: { profile: { kinds: ['lost-records'], faultPauseMs: 1500, faultsAtOnce: 1 }, seedsToFind: 12 },
  },
  {
    key: 'unequal-members',
    name: 'members of a dirty chunk count as equal without a comparison',
    rule: 'J1',
    file: 'chunkserver/repair/joiner.ts',
    line: 'Array.from({ length: WORKERS_PER_JOIN }',
    becomes: 'Array.from({ length: replica.state.role === Role.reconciling ? 0 : WORKERS_PER_JOIN }',
    found: { profile: { kinds: deadWriters, faultPauseMs: 700, faultsAtOnce: 3 }, seedsToFind: 12 },
  },
  {
    key: 'crashed-authority',
    name: 'of the members of a dirty chunk one that lost its memory is the authority',
    rule: 'J3',
    file: 'metadata/control/replication/reconciler.ts',
    line: 'const best = Math.min(...members.map(rank))',
    becomes: 'const best = Math.max(...members.map(rank))',
    found: {
      profile: { kinds: ['client-crash', 'cs-power-loss', 'cs-crash'], faultPauseMs: 700, faultsAtOnce: 4 },
      seedsToFind: 12,
    },
  },
  {
    key: 'impatient-choice',
    name: 'crashed replicas go on although one that did not crash may return',
    rule: 'J3',
    file: 'placement/plan.ts',
    line: "if (restarted.length === 0 || mayReturn) return { kind: 'wait' }",
    becomes: "if (restarted.length === 0) return { kind: 'wait' }",
    found: {
      profile: {
        kinds: ['cs-power-loss', 'partition-cs-mds', 'isolate-cs'],
        faultPauseMs: 500,
        faultsAtOnce: 4,
        offlineSeconds: 12,
      },
      seedsToFind: 12,
    },
  },
  {
    key: 'unread-open-list',
    name: 'after a crash no replica on the open list counts as unverified',
    rule: 'B1',
    file: 'chunkserver/store/store-open.ts',
    line: "if (kind !== 'none' && state.isOpen && !untouched) state.flags |= StateFlag.unclean",
    becomes: '',
    found: { profile: { kinds: powerLosses, faultPauseMs: 1000, faultsAtOnce: 2 }, seedsToFind: 12 },
  },
  {
    key: 'trusted-boot',
    name: 'a host that has booted again counts as a process that has ended',
    rule: 'B2',
    file: 'chunkserver/format/superblock.ts',
    line: "return same ? 'process' : 'host'",
    becomes: "return same || true ? 'process' : 'host'",
    found: { profile: { kinds: powerLosses, faultPauseMs: 1000, faultsAtOnce: 2 }, seedsToFind: 12 },
  },
  {
    key: 'hasty-comparison',
    name: 'scrubbing compares chunks that somebody writes',
    rule: 'R2',
    file: 'metadata/control/scrub/chunk-check.ts',
    line: 'return !run.isDisturbed\n',
    becomes: 'return true\n',
    found: {
      profile: { kinds: ['slow-network', 'cs-crash'], faultPauseMs: 1000, faultsAtOnce: 3 },
      seedsToFind: 12,
    },
  },
]

export const plantedLines: readonly PlantedLine[] = [...simulatedLines, ...scriptedLines]
