/** Situations that the code marks, which rule each is a case of, and who visits them. */
import type { RunOptions } from './simulation.ts'

/**
 * The situations that a long enough run of the simulation must have seen, each with the rule that it is a case of: the
 * `mark(…)` calls of the code (core/base/coverage.ts). A rule whose case never comes up is not tested by the simulation.
 */
export const situations: Readonly<Record<string, string>> = {
  'a write finds no room before anything is touched': 'A2',
  'writes are held below the minimum': 'A4',
  'an unclean replica is not in sync by an order alone': 'B1',
  'a host crash is recognised': 'B2',
  'a pending epoch is superseded': 'E1',
  'a pending epoch waits for an unclean member': 'E1',
  'a late order is answered with what is': 'E2',
  'a write of an older lease is refused': 'E3',
  'an operation of another version is refused': 'E4',
  'an unanswered write is sent again after a drain': 'E5',
  'a proposal that starts from an older epoch is ignored': 'E6',
  'a report about an older epoch is answered with the next one': 'E6',
  'a replica that is not in sync refuses a read': 'E7',
  'a chunk waits for a server that a new master has not heard of': 'F5',
  'a loss waits for the next open': 'F5',
  'a flush of writes that another process took is refused': 'F6',
  'a replica with an error is not in sync until it has joined': 'F7',
  'the size of a dead writer is recovered': 'F8',
  'the last replicas in sync are waited for': 'G2',
  'members of a dirty chunk are made equal': 'J1',
  'one member of a dirty chunk is left': 'J1',
  'only a reconciliation may follow a dead writer': 'J5',
  'a stale replica is kept for pages that are missing': 'J7',
  'a region is verified after an unclean stop': 'J9',
  'a join goes on from another source': 'J10',
  'a disk went back to a moment after its registration': 'B3',
  'a replica does not remember what it should': 'B3',
  'a reconciliation may have lost acknowledged writes': 'F5',
  'a chunk server without a master refuses the reads of a holder': 'L2',
  'a dirty chunk that somebody waits for is reconciled first': 'L8',
  'a recall takes too long': 'L9',
  'a lease that its holder does not know is given back': 'L9',
  'two clients asked for a free lease at once': 'L9',
  'a page is not adopted while a member is silent': 'P1',
  'a torn page is adopted': 'P1',
  'page records of the older slot are taken': 'P2',
  'a partial write pulls its page first': 'P4',
  'a partial write finds its page bad': 'P5',
  'a holder is asked to pause a chunk that is never idle': 'R2',
  'replicas of a chunk that nobody writes differ': 'R2',
  'a first write branches a shared chunk': 'S1',
  'a rollback recalls the lease of a writer': 'S1',
  'a snapshot waits for what a dead writer left': 'S1',
  'a writer is paused for a snapshot': 'S1',
  'zeros hide what the parent has': 'S2',
  'a chunk that nobody holds is kept for its overlays': 'S3',
  'a replica with an overlay above it is not deleted': 'S3',
  'a write to what an overlay reads through is refused': 'S3',
  'an overlay that had left joins again': 'S3',
  'a read falls through an overlay': 'S4',
  'an overlay joins or is reconciled': 'S4',
  'a merge that was cut off begins again': 'S5',
  'a merge waits for a page that its parent lacks': 'S5',
  'an overlay takes over what its parent has': 'S5',
  'a size may not grow past a tail that is to be zeroed': 'T1',
}

/**
 * Those that runs do not visit, or hardly ever: a second look at what others have made sure of already, late messages,
 * rare damage. The scenario of a unit test (below `core`) does.
 */
export const scripted: Readonly<Record<string, readonly string[]>> = {
  'metadata/server/rolled-back-disk.test.ts': [
    'a disk went back to a moment after its registration',
    'a replica does not remember what it should',
    'a reconciliation may have lost acknowledged writes',
  ],
  'chunkserver/store/chunk-store.test.ts': [
    'a late order is answered with what is',
    'a write of an older lease is refused',
    'a partial write finds its page bad',
    'a chunk server without a master refuses the reads of a holder',
  ],
  'chunkserver/store/crash.test.ts': [
    'page records of the older slot are taken',
    'a replica with an error is not in sync until it has joined',
  ],
  'chunkserver/repair/interleavings.test.ts': ['an unclean replica is not in sync by an order alone'],
  'chunkserver/store/overlay.test.ts': ['a write to what an overlay reads through is refused'],
  'chunkserver/repair/overlay-merger.test.ts': ['a merge waits for a page that its parent lacks'],
  'client/session/session.test.ts': ['a lease that its holder does not know is given back'],
  'metadata/chunks/handlers.test.ts': [
    'a proposal that starts from an older epoch is ignored',
    'only a reconciliation may follow a dead writer',
    'a size may not grow past a tail that is to be zeroed',
  ],
  'metadata/server/interleavings.test.ts': [
    'a stale replica is kept for pages that are missing',
    'a dirty chunk that somebody waits for is reconciled first',
  ],
  'metadata/server/metadata-server.test.ts': ['a recall takes too long'],
  'metadata/server/scrub.test.ts': [
    'a holder is asked to pause a chunk that is never idle',
    'replicas of a chunk that nobody writes differ',
  ],
  'metadata/snapshots/service.test.ts': [
    'a snapshot waits for what a dead writer left',
    'a writer is paused for a snapshot',
  ],
}

/** In this trouble the others come up within a few seeds. */
export const visitingProfiles: readonly Omit<RunOptions, 'seed'>[] = [
  {
    kinds: ['cs-crash', 'partition-cs-mds', 'client-crash', 'disk-error'],
    faultPauseMs: 700,
    faultsAtOnce: 3,
    shape: { snapshotPercent: 10 },
  },
  {
    kinds: ['wiped-cs', 'set-replicas', 'cs-crash', 'all-power-loss'],
    faultPauseMs: 700,
    faultsAtOnce: 3,
    shape: { snapshotPercent: 10 },
  },
  {
    kinds: ['all-power-loss', 'cs-power-loss', 'partition-cs-cs', 'client-crash'],
    faultPauseMs: 500,
    faultsAtOnce: 5,
  },
  { kinds: ['all-power-loss', 'mds-crash'], faultPauseMs: 500 },
  {
    kinds: ['disk-error', 'cs-crash', 'full-disk', 'client-crash'],
    faultPauseMs: 500,
    faultsAtOnce: 4,
  },
  {
    kinds: ['partition-client-mds', 'isolate-client', 'paused-process'],
    faultPauseMs: 700,
    faultsAtOnce: 3,
  },
  {
    kinds: ['late-news', 'stalled-link', 'isolate-cs', 'swizzle'],
    faultPauseMs: 700,
    faultsAtOnce: 4,
  },
]

/** Those of `situations` that were not met, of those that runs visit. */
export function neverVisited(visited: ReadonlyMap<string, number>): string[] {
  const elsewhere = new Set(Object.values(scripted).flat())
  return Object.entries(situations)
    .filter(([name]) => !visited.has(name) && !elsewhere.has(name))
    .map(([name, rule]) => `${name} (${rule})`)
}
