/** Which errors the faults of a run excuse. Whatever has no excuse here is a violation. */
import type { FaultKind } from './faults.ts'
import { severalKinds } from './metadata-faults.ts'
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
  'stalled-link',
  'late-news',
  'first-server-dies',
  'swizzle',
  ...severalKinds,
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
  'dead-disk',
  'full-disk',
  'wiped-cs',
  'rolled-back-disk',
  'one-survivor',
  'lost-file',
  'lost-records',
  'set-replicas',
]
/** Too few chunk servers for a new chunk, perhaps for longer than offline_tout. */
const disablesServers: readonly FaultKind[] = [
  'full-disk',
  'cs-crash',
  'cs-power-loss',
  'all-power-loss',
  'mds-crash',
  'mds-power-loss',
  'isolate-cs',
  'partition-cs-mds',
  'slow-network',
  'paused-process',
  'hanging-disk',
  'slow-disk',
  'disk-error',
  'dead-disk',
  'wiped-cs',
  'rolled-back-disk',
  'one-survivor',
  'lost-file',
  'lost-records',
  'set-replicas',
  'swizzle',
  'late-news',
  'first-server-dies',
  ...severalKinds,
]
export const READ_OF_DELETED = 'read of what is deleted'
/** What a fault did may be told this much later. */
const MEMORY_MS = 60_000

export function excuseOf(nemesis: Nemesis | null, code: string, during: string): string | null {
  if (nemesis === null) return null
  switch (code) {
    case 'EIO':
      // a rotten page may be all that is reachable; wrong data never is an answer
      if (during === 'read')
        return nemesis.recently(['bit-rot', 'misdirected-write', 'lost-write'], MEMORY_MS)
      return nemesis.recently(endsSessions, MEMORY_MS)
    // rule A4: a new chunk is not held for ever
    case 'ENOSPC':
      return nemesis.recently(disablesServers, MEMORY_MS)
    // what is deleted is kept for the sessions that have it open, as long as they last
    case 'ESTALE':
      return during === READ_OF_DELETED ? nemesis.recently(endsSessions, MEMORY_MS) : null
    case 'NO_LEASE':
    case 'NO_SESSION':
      return nemesis.recently(endsSessions, MEMORY_MS)
    case 'EBUSY':
      return nemesis.recently(delaysHolders, MEMORY_MS)
    default:
      return null
  }
}

/** Another client may know an older size: a holder that does not answer in time is not waited for. */
export function excuseOldSize(nemesis: Nemesis | null): boolean {
  return nemesis !== null && nemesis.recently([...delaysHolders, ...disablesServers], MEMORY_MS) !== null
}
