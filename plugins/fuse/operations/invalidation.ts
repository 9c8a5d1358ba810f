/**
 * Somebody else's changes: what the client library says has become old is dropped from the kernel's
 * caches and from what this mount believes about them.
 */
import type { CacheInvalidation } from '@cairn/core/client'
import type { Context } from './context.ts'
import { encodeIncreaseEpoch, encodeInvalidateEntry, encodeInvalidateInode } from '../protocol/reply.ts'

export function invalidate(context: Context, invalidation: CacheInvalidation): void {
  if (invalidation.all) {
    invalidateAll(context)
    return
  }
  let isComplete = true
  for (const inode of invalidation.inodes) {
    const state = context.files.openInode(inode)
    if (state !== undefined) state.invalidated = true
    context.inodes.invalidate(inode)
    if (!context.inodes.mayBeCached(inode) && state === undefined) continue
    isComplete = context.notifier.send(encodeInvalidateInode(inode, 0)) && isComplete
  }
  for (const entry of invalidation.entries) {
    if (!context.inodes.mayBeCached(entry.parent)) continue
    isComplete = context.notifier.send(encodeInvalidateEntry(entry.parent, entry.name)) && isComplete
  }
  // The queue is full: attributes expire by time-out; pages are dropped at the next open.
  if (!isComplete) forgetEverything(context)
}

/** Every page signature goes, so that each next open drops the kernel's pages. */
function forgetEverything(context: Context): void {
  for (const inode of context.inodes.inodes()) {
    context.inodes.invalidate(inode)
    const state = context.files.openInode(inode)
    if (state !== undefined) state.invalidated = true
  }
}

function invalidateAll(context: Context): void {
  forgetEverything(context)
  context.notifier.send(encodeIncreaseEpoch())
  for (const inode of context.inodes.inodes()) {
    if (!context.notifier.send(encodeInvalidateInode(inode, 0))) {
      context.log.warn('too many cached inodes to drop at once; the rest expires by time-out')
      return
    }
  }
}
