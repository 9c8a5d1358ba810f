/** Which errors the faults of a run excuse. Whatever has no excuse here is a violation. */
import type { FaultKind } from './faults.ts'
import type { Nemesis } from './nemesis.ts'

/** A session that could not be renewed ends; what was under its leases fails with EIO (rules E3, L6). */
const endsSessions: readonly FaultKind[] = [
  'partition-client-mds',
  'isolate-client',
  'paused-process',
  'mds-crash',
  'mds-power-loss',
  'all-power-loss',
  'slow-network',
  'cut-connections',
]
/** A holder that cannot flush in time keeps its lease: the asker hears EBUSY (rule L9). */
const delaysHolders: readonly FaultKind[] = [
  ...endsSessions,
  'cs-crash',
  'cs-power-loss',
  'client-crash',
  'partition-client-cs',
  'partition-cs-mds',
  'partition-cs-cs',
  'isolate-cs',
  'slow-disk',
  'hanging-disk',
  'disk-error',
  'full-disk',
  'wiped-cs',
]
/** What a fault did may be told this much later. */
const MEMORY_MS = 60_000

export function excuseOf(nemesis: Nemesis | null, code: string, during: string): string | null {
  if (nemesis === null) return null
  switch (code) {
    case 'EIO':
      // a rotten page may be all that is reachable; wrong data never is an answer
      if (during === 'read') return nemesis.recently(['bit-rot'], MEMORY_MS)
      return nemesis.recently(endsSessions, MEMORY_MS)
    case 'ENOSPC':
      return nemesis.recently(['full-disk'], MEMORY_MS)
    case 'NO_LEASE':
    case 'NO_SESSION':
      return nemesis.recently(endsSessions, MEMORY_MS)
    case 'EBUSY':
      return nemesis.recently(delaysHolders, MEMORY_MS)
    default:
      return null
  }
}
