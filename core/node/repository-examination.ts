/** Examination of a metadata server's directory, for commands: nobody else may use it meanwhile. */
import fs from 'node:fs'
import path from 'node:path'
import { CairnError } from '../base/errors.ts'
import type { Examination } from '../metadata/quorum/examination.ts'
import type { Address } from '../platform/network.ts'
import { NodeHardStateFile } from '../platform/node/hard-state-file.ts'
import { SqliteStore } from '../platform/node/sqlite-store.ts'
import { readListenSetting } from './listen-setting.ts'
import { HARD_STATE_FILE, METADATA_DATABASE } from './repository-files.ts'

/** Something that only a metadata server has must be there. Throws NOT_FOUND. */
export function checkIsRepository(repository: string): void {
  const isThere = [METADATA_DATABASE, HARD_STATE_FILE].some((name) =>
    fs.existsSync(path.join(repository, name)),
  )
  if (isThere) return
  throw new CairnError('NOT_FOUND', `${repository} is no directory of a metadata server`, {
    next: 'name it with -r; when it is lost as a whole: cairn rm-mds ID, then cairn make-mds -a IP -r DIR',
  })
}

export async function examineRepository(repository: string): Promise<Examination> {
  // Most commands need no metadata: they start in half the time without that code.
  const { examine } = await import('../metadata/quorum/examination.ts')
  return examine(
    () => SqliteStore.openExisting(path.join(repository, METADATA_DATABASE)),
    new NodeHardStateFile(path.join(repository, HARD_STATE_FILE)),
  )
}

/** Null when it cannot be read. */
export function addressOfRepository(repository: string): Address | null {
  try {
    return readListenSetting(repository)
  } catch {
    // It is damaged, too: the caller asks for the address.
    return null
  }
}
