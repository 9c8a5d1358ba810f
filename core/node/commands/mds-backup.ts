/**
 * `cairn mds backup FILE|-` and `cairn mds restore FILE|-`: a copy of the metadata of a running cluster (or of a
 * stopped directory), and a new quorum of one out of such a copy. core/metadata/quorum/backup-format.ts.
 */
import fs from 'node:fs'
import path from 'node:path'
import { CairnError, codeOf } from '../../base/errors.ts'
import type { AdminConnection } from '../../cli/admin.ts'
import { hostKeys } from '../../cli/authentication.ts'
import type { CommandContext } from '../../cli/context.ts'
import { parseAddress } from '../../cli/etc.ts'
import { formatSize } from '../../cli/output.ts'
import {
  BACKUP_PIECE_BYTES,
  BackupDecoder,
  BackupEncoder,
  type BackupHeader,
} from '../../metadata/quorum/backup-format.ts'
import { GENERATION_KEY } from '../../metadata/chunks/administration.ts'
import { describeCopy } from '../../metadata/quorum/snapshot-sender.ts'
import { silentLogger } from '../../platform/logger.ts'
import { NodeSnapshotFiles } from '../../platform/node/snapshot-files.ts'
import { nodeClock } from '../../platform/node/platform.ts'
import { SqliteStore } from '../../platform/node/sqlite-store.ts'
import type { Store } from '../../platform/store.ts'
import { emptyDraft, writeRenewed } from '../renewed-repository.ts'
import { checkIsRepository, examineRepository } from '../repository-examination.ts'
import { lockRepository } from '../repository-lock.ts'
import { METADATA_DATABASE } from '../repository-files.ts'
import { syncDirectory } from '../set-aside.ts'
import { checkEmpty, putInPlace } from './join-mds.ts'
import { tellRecovery } from './mds-recover.ts'

const PIECE_TIMEOUT_MS = 30_000
/** Where the state keeps `GENERATION_KEY`. */
const CONFIG_TABLE = 'config'
/** All of the metadata are written once. */
const BEGIN_TIMEOUT_MS = 600_000

type Reader = (offset: number) => Promise<Buffer>

// --- backup ---

export async function backup(
  context: CommandContext,
  file: string,
  repository: string | undefined,
): Promise<void> {
  const write = (header: BackupHeader, read: Reader) => writeBackup(context, file, header, read)
  if (repository !== undefined) await backupStopped(context, repository, write)
  else await context.withAdmin((admin) => backupRunning(context, admin, write))
}

type Write = (header: BackupHeader, read: Reader) => Promise<void>

async function backupRunning(context: CommandContext, admin: AdminConnection, write: Write): Promise<void> {
  const { clusterUuid, metadata } = admin
  const begun = await metadata.call('mds.backup', {}, { timeoutMs: BEGIN_TIMEOUT_MS })
  const { backup: id, ...place } = begun
  const header = { cluster: context.cluster(), clusterUuid, ...place, timeMs: nowMs() }
  await write(header, async (offset) => {
    const options = { timeoutMs: PIECE_TIMEOUT_MS }
    const { bytes } = await metadata.call('mds.backupPiece', { backup: id, offset }, options)
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  })
  await metadata.call('mds.backupEnd', { backup: id })
}

async function backupStopped(context: CommandContext, repository: string, write: Write): Promise<void> {
  checkIsRepository(repository)
  const lock = lockRepository(repository)
  const database = path.join(repository, METADATA_DATABASE)
  const files = new NodeSnapshotFiles(`${database}.backup`)
  try {
    const { faults, cluster } = await examineRepository(repository)
    // Term and vote are not in the copy: it does not matter here when they are lost.
    const fault = faults.find(({ code }) => !HARD_STATE_CODES.includes(code))
    if (fault !== undefined || cluster === null)
      throw new CairnError(
        'FAILED',
        `${repository} cannot be copied: ${fault?.message ?? 'no cluster is in it'}`,
        {
          next: `see: cairn mds check -r ${repository}`,
        },
      )
    if (context.clusterGiven !== undefined && context.clusterGiven !== cluster.name)
      throw new CairnError('WRONG_CLUSTER', `${repository} is of cluster '${cluster.name}'`, {
        next: 'check -c',
      })
    await files.drop('outgoing')
    const store = await SqliteStore.openExisting(database)
    await store.snapshot(files.outgoingPath).finally(() => store.close())
    const copy = await files.open('outgoing')
    const { index, term, generation } = await describeStopped(copy).finally(() => copy.close())
    const place = { index, term, generation, timeMs: nowMs() }
    await write({ cluster: cluster.name, clusterUuid: cluster.uuid, ...place }, (offset) =>
      files.read(offset, BACKUP_PIECE_BYTES),
    )
  } finally {
    await files.drop('outgoing')
    lock.release()
  }
}

async function describeStopped(copy: Store): Promise<Pick<BackupHeader, 'index' | 'term' | 'generation'>> {
  const { index, term } = await describeCopy(copy)
  const { rows } = await copy.glance(CONFIG_TABLE)
  return { index, term, generation: Number(rows.get(GENERATION_KEY) ?? 0) }
}

export const HARD_STATE_CODES: readonly string[] = ['HARD_STATE_DAMAGED', 'RAFT_HARD_STATE_LOST']

function nowMs(): number {
  return nodeClock.wall().seconds * 1000
}

/** Under another name until all of it is on the disk. */
async function writeBackup(
  context: CommandContext,
  file: string,
  header: BackupHeader,
  read: Reader,
): Promise<void> {
  const isPipe = file === '-'
  const target = path.resolve(file)
  const draft = `${target}.new`
  const output = isPipe ? null : await fs.promises.open(draft, 'w', 0o600)
  const write = output === null ? writeToPipe : (bytes: Buffer) => output.writeFile(bytes)
  let sizeBytes = 0
  try {
    const encoder = new BackupEncoder()
    await write(encoder.header(header))
    for (;;) {
      const bytes = await read(sizeBytes)
      if (bytes.length === 0) break
      await write(encoder.piece(bytes))
      await write(bytes)
      sizeBytes += bytes.length
    }
    await write(encoder.end())
    await output?.sync()
  } catch (error) {
    await output?.close()
    if (!isPipe) fs.rmSync(draft, { force: true })
    throw error
  }
  if (output === null) return
  await output.close()
  fs.renameSync(draft, target)
  syncDirectory(path.dirname(target))
  const { index, term, cluster } = header
  context.output.document({ file: target, sizeBytes, ...header })
  context.output.line(
    `The metadata of '${cluster}' as of entry ${index}, term ${term}, ${formatSize(sizeBytes)}, are in ${file}. ` +
      'Keep the key of the cluster with it (auth_digest.key).',
  )
}

function writeToPipe(bytes: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(bytes, (error) =>
      error === null || error === undefined ? resolve() : reject(error),
    )
  })
}

// --- restore ---

export async function restore(
  context: CommandContext,
  file: string,
  at: string,
  repository: string,
): Promise<void> {
  const address = parseAddress(at)
  const cluster = context.cluster()
  checkEmpty(repository)
  const draft = emptyDraft(repository)
  const database = path.join(draft, 'copy.db')
  try {
    const header = await readBackup(file, database)
    checkCluster(context, header)
    const time = new Date(header.timeMs).toISOString()
    const message = `The metadata were restored from a copy of ${time}, entry ${header.index}: what came later may be lost`
    const renewed = await writeRenewed({
      database,
      draft,
      cluster,
      address,
      memberKnown: 0,
      termKnown: 0,
      message,
    })
    for (const name of fs.readdirSync(draft))
      if (name.startsWith('copy.db')) fs.rmSync(path.join(draft, name))
    putInPlace(draft, repository)
    context.etc.hostIdentity()
    context.etc.addBootstrapAddress(cluster, address)
    context.output.document({ ...header, ...renewed, repository })
    context.output.line(
      `MDS#${renewed.member} holds the metadata of '${cluster}' as of entry ${renewed.lastIndex}, copied ${time}.`,
    )
    tellRecovery(context, cluster, repository)
  } catch (error) {
    fs.rmSync(draft, { recursive: true, force: true })
    throw error
  }
}

async function readBackup(file: string, database: string): Promise<BackupHeader> {
  const decoder = new BackupDecoder()
  const output = await fs.promises.open(database, 'wx', 0o600)
  try {
    const input = file === '-' ? process.stdin : fs.createReadStream(file)
    for await (const bytes of input)
      for (const piece of decoder.push(bytes as Buffer)) await output.writeFile(piece)
    return decoder.finish()
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error
    throw new CairnError('NOT_FOUND', `${file} cannot be read: there is no such file`, {
      next: 'name the file that mds backup wrote, or - for standard input',
    })
  } finally {
    await output.close()
  }
}

/** Without the key of that very cluster nobody could open it, and its hosts would not be let in. */
function checkCluster(context: CommandContext, header: BackupHeader): void {
  const cluster = context.cluster()
  if (header.cluster !== cluster)
    throw new CairnError('WRONG_CLUSTER', `the copy is of cluster '${header.cluster}', not of '${cluster}'`, {
      next: `give its name with -c ${header.cluster}`,
    })
  const keyFile = context.etc.keyFile(cluster)
  if (!fs.existsSync(keyFile))
    throw new CairnError('KEY_MISSING', `the key of cluster '${cluster}' is not on this host (${keyFile})`, {
      next: 'copy the file from where it was kept with the copy, or from any host of the cluster',
    })
  if (hostKeys(context.etc, cluster, silentLogger).current().clusterUuid === header.clusterUuid) return
  throw new CairnError(
    'WRONG_CLUSTER',
    `the copy is of another cluster '${cluster}' than the key of this host`,
    {
      next: 'check the file, and the key',
    },
  )
}
