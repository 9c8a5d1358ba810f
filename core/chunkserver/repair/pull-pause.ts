/**
 * Writers come before joins (rule J6): a member that joins takes every write too, and is given up by its writers when
 * it is slow. So what it pulls waits while its disk has kept a sync waiting, or lets nobody write; nobody is held up
 * by pages that could have come later. It goes on when the disk has caught up.
 */
import type { ChunkStore } from '../store/chunk-store.ts'

/** A fraction of the shortest deadline of a writer for a joiner (client/session/limits.ts: 3 s). */
const SYNC_AGE_MS_MAX = 500
const STEP_MS = 50

export async function yieldToWriters(store: ChunkStore, isOver: () => boolean): Promise<void> {
  while (!isOver() && (store.writeBack.isOverloaded || store.oldestIoAgeMs > SYNC_AGE_MS_MAX))
    await new Promise<void>((resolve) => void store.clock.setTimer(STEP_MS, resolve))
}
