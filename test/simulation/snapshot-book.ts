/** The snapshots of a run as the oracle knows them: what each contains, and whether it must, may or may not be there. */
import { FileModel } from './file-model.ts'

/** There at once: deleting them is most of the work of merging. */
export const SNAPSHOTS_MAX = 8

export interface SnapshotEntry {
  readonly name: string
  readonly source: FileModel
  readonly model: FileModel
  /** 'going': to be deleted; who opened it before reads on. 'unknown': nobody knows what came of that. */
  state: 'there' | 'going' | 'gone' | 'unknown'
  /** Operations that need it; it is not deleted meanwhile. */
  userCount: number
}

export class SnapshotBook {
  /** By id. */
  readonly entries = new Map<number, SnapshotEntry>()
  /** Names of those of which nobody knows whether they were made. */
  readonly unknownNames = new Set<string>()
  #nextName = 1

  newName(): string {
    return `s${this.#nextName++}`
  }

  made(id: number, name: string, source: FileModel): SnapshotEntry {
    const model = new FileModel(`${source.name}@${name}`)
    model.inode = id
    const entry: SnapshotEntry = { name, source, model, state: 'there', userCount: 0 }
    this.entries.set(id, entry)
    return entry
  }

  there(): SnapshotEntry[] {
    return [...this.entries.values()].filter(({ state }) => state === 'there')
  }
}
