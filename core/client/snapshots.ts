/**
 * Snapshots and clones of files (docs/formats/snapshots.md): what api.ts promises, over calls to the master. Who calls,
 * and how a call is repeated until it is answered, is not known here: a client's session, or a command's connection.
 */
import { SNAPSHOTS_LISTED_MAX } from '../wire/messages/snapshots.ts'
import type { Credentials, Snapshot, SnapshotInfo, Snapshots } from './api.ts'
import type { Session } from './session/session.ts'

/** Both repeat a call that was answered with TRY_AGAIN: a writer is being paused, or a long list taken over. */
export type SnapshotCalls = Pick<Session, 'call' | 'mutate'>

export class ClientSnapshots implements Snapshots {
  readonly #calls: SnapshotCalls
  readonly #onRolledBack: (inode: number) => Promise<unknown>

  /** `onRolledBack`: whoever knows the file forgets what it knew, before the answer. */
  constructor(calls: SnapshotCalls, onRolledBack: (inode: number) => Promise<unknown> = async () => {}) {
    this.#calls = calls
    this.#onRolledBack = onRolledBack
  }

  async create(inode: number, name: string, path: string): Promise<number> {
    return (await this.#calls.mutate('snapshot.create', { inode, name, path })).snapshot
  }

  async list(source = 0): Promise<Snapshot[]> {
    const all: Snapshot[] = []
    for (let after = 0; ; ) {
      const page = await this.#calls.call('snapshot.list', { source, after, limit: SNAPSHOTS_LISTED_MAX })
      all.push(...page.snapshots)
      after = all.at(-1)?.snapshot ?? after
      if (page.end) return all
    }
  }

  async info(snapshot: number): Promise<SnapshotInfo> {
    const { snapshot: shown, ...counts } = await this.#calls.call('snapshot.info', { snapshot })
    return { ...shown, ...counts }
  }

  async delete(snapshot: number): Promise<void> {
    await this.#calls.mutate('snapshot.delete', { snapshot })
  }

  async clone(source: number, parent: number, name: string, owner: Credentials): Promise<number> {
    const { uid, gid } = owner
    return (await this.#calls.mutate('snapshot.clone', { source, parent, name, uid, gid })).inode
  }

  async rollback(snapshot: number): Promise<number> {
    const { inode } = await this.#calls.mutate('snapshot.rollback', { snapshot })
    await this.#onRolledBack(inode)
    return inode
  }
}
