/** The repository of a new cluster of the bench, below `directory`, with a large state in it. */
import fs from 'node:fs'
import path from 'node:path'
import { EtcDirectory } from '../core/cli/etc.ts'
import { makeMetadataServer } from '../core/node/commands/make-mds.ts'
import { METADATA_DATABASE } from '../core/node/repository-files.ts'
import type { StateSize } from './metadata-state.ts'
import { run } from './process.ts'
import { CLUSTER } from './watched-server.ts'

export const REPOSITORY = 'mds'

export async function makeRepository(directory: string, port: number): Promise<void> {
  fs.mkdirSync(path.join(directory, 'etc'))
  await makeMetadataServer({
    ...{ cluster: CLUSTER, replicas: '3', failureDomain: 'host', password: 'a password of the bench' },
    address: { host: '127.0.0.1', port },
    repository: path.join(directory, REPOSITORY),
    etc: new EtcDirectory(path.join(directory, 'etc')),
  })
}

export function databaseOf(directory: string): string {
  return path.join(directory, REPOSITORY, METADATA_DATABASE)
}

/** In a process of its own: making a state takes more memory than having it. */
export async function fillRepository(directory: string, sizes: readonly StateSize[]): Promise<void> {
  const program = path.join(import.meta.dirname, 'metadata-state.ts')
  await run(process.execPath, [program, databaseOf(directory), JSON.stringify(sizes)])
}
