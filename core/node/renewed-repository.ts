/** The directory of a quorum that begins anew: one member, made out of a copy or of a survivor. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { type Renewed, renew } from '../metadata/quorum/renewal.ts'
import type { Address } from '../platform/network.ts'
import { NodeHardStateFile } from '../platform/node/hard-state-file.ts'
import { nodeClock } from '../platform/node/platform.ts'
import { SqliteStore } from '../platform/node/sqlite-store.ts'
import { writeListenSetting } from './listen-setting.ts'
import { HARD_STATE_FILE, METADATA_DATABASE } from './repository-files.ts'

export interface RenewedRepository {
  /** The copy: only read. */
  readonly database: string
  /** An empty directory; it gets its name when all is well. */
  readonly draft: string
  readonly cluster: string
  readonly address: Address
  readonly memberKnown: number
  readonly termKnown: number
  /** For the event log. */
  readonly message: string
}

/** Durable when it resolves. Rejects when the copy does not verify. */
export async function writeRenewed(options: RenewedRepository): Promise<Renewed> {
  const { database, draft, cluster, address, memberKnown, termKnown, message } = options
  const source = await SqliteStore.openExisting(database)
  try {
    const target = await SqliteStore.open(path.join(draft, METADATA_DATABASE))
    try {
      const renewed = await renew({
        ...{ source, target, cluster, memberKnown, termKnown, message },
        hardState: new NodeHardStateFile(path.join(draft, HARD_STATE_FILE)),
        ...{ host: address.host, port: address.port, name: os.hostname() },
        wallSeconds: nodeClock.wall().seconds,
      })
      writeListenSetting(draft, address)
      return renewed
    } finally {
      await target.close()
    }
  } finally {
    await source.close()
  }
}

/** Beside its place: a crash leaves no half-made repository. */
export function emptyDraft(repository: string): string {
  const draft = `${repository}.new`
  fs.rmSync(draft, { recursive: true, force: true })
  fs.mkdirSync(draft, { recursive: true, mode: 0o700 })
  return draft
}
