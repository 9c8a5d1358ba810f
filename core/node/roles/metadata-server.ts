/** `cairn mds -r DIR`: a metadata server on its repository, until it is stopped. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import v8 from 'node:v8'
import { BufferPool } from '../../base/buffer-pool.ts'
import { CairnError } from '../../base/errors.ts'
import { hostKeys } from '../../cli/authentication.ts'
import type { EtcDirectory } from '../../cli/etc.ts'
import { MetadataServer } from '../../metadata/server/metadata-server.ts'
import type { ProcessUsage } from '../../metadata/server/services/cluster-statistics.ts'
import type { Logger } from '../../platform/logger.ts'
import { loadPasswordExchange } from '../../platform/node/opaque-password.ts'
import { nodeClock, nodeNetwork, nodeRandom } from '../../platform/node/platform.ts'
import { NodeHardStateFile } from '../../platform/node/hard-state-file.ts'
import { NodeSnapshotFiles } from '../../platform/node/snapshot-files.ts'
import { SqliteStore } from '../../platform/node/sqlite-store.ts'
import { announcerOf } from '../announce.ts'
import { readListenSetting } from '../listen-setting.ts'
import { readMovedMembers, removeMovedMembers } from '../moved-members.ts'
import { bootPlugins } from '../plugins.ts'
import { withNextStep } from '../damaged-member.ts'
import { HARD_STATE_FILE, METADATA_DATABASE } from '../repository-files.ts'
import { lockRepository } from '../repository-lock.ts'
import type { RunningRole } from '../role-process.ts'

/**
 * A metadata server lives long, holds a large state, and makes short-lived objects for every commit that grow
 * just old enough to leave the young generation. Left alone, V8 lets them fill the old one up to twice the state
 * and more before it looks: 307 MB resident with 100,000 files, of which 60 MB are state. Collected whenever it
 * has grown by a quarter: 178 MB.
 */
const HEAP_FLAGS = '--heap-growing-percent=25'

export interface MetadataServerRole {
  readonly cluster: string
  readonly repository: string
  readonly etc: EtcDirectory
  readonly logger: Logger
}

export async function startMetadataServer(role: MetadataServerRole): Promise<RunningRole> {
  v8.setFlagsFromString(HEAP_FLAGS)
  const told = (error: unknown): Error => withNextStep(error, role.cluster, role.repository)
  try {
    return await start(role, told)
  } catch (error) {
    throw told(error)
  }
}

async function start(role: MetadataServerRole, told: (error: unknown) => Error): Promise<RunningRole> {
  const database = path.join(role.repository, METADATA_DATABASE)
  // Throws when the disk does not answer: that is another thing than an empty mount point.
  if (fs.statSync(database, { throwIfNoEntry: false }) === undefined) {
    throw new CairnError('NOT_FOUND', `${role.repository} holds no metadata`, {
      next: 'attach or mount the disk, or create a cluster with: cairn make-mds -I',
    })
  }
  const keys = hostKeys(role.etc, role.cluster, role.logger)
  const lock = lockRepository(role.repository)
  const plugins = await bootPlugins({
    role: 'mds',
    etc: role.etc,
    logger: role.logger,
    socketName: `mds-${path.basename(role.repository)}`,
  })
  let endedBecause: (reason: string) => void = () => {}
  let failed: (error: Error) => void = () => {}
  const ended = new Promise<string>((resolve, reject) => {
    endedBecause = resolve
    failed = reject
  })
  const server = await MetadataServer.start({
    store: await SqliteStore.openExisting(database),
    snapshots: new NodeSnapshotFiles(database),
    backups: new NodeSnapshotFiles(`${database}.backup`),
    hardState: new NodeHardStateFile(path.join(role.repository, HARD_STATE_FILE)),
    clock: nodeClock,
    network: nodeNetwork,
    random: nodeRandom,
    logger: role.logger,
    pool: new BufferPool(),
    address: readListenSetting(role.repository),
    hostName: os.hostname(),
    moved: readMovedMembers(role.repository),
    onMovesSettled: () => removeMovedMembers(role.repository),
    onFatal: (error) => failed(told(error)),
    onShutdown: () => endedBecause('shut down by an administrator'),
    usage: usageMeter(),
    cluster: { name: role.cluster, uuid: keys.current().clusterUuid },
    authentication: { keys, loadExchange: loadPasswordExchange },
  })
  const announcer = announcerOf(plugins, role.logger)
  const { clusterName, clusterUuid } = server
  void announcer.announce([{ cluster: clusterName, clusterUuid, ...readListenSetting(role.repository) }])
  return {
    ended,
    async stop() {
      await announcer.announce([])
      await server.close()
      await plugins.stop()
      lock.release()
    },
  }
}

/** Of this process since the last call. */
function usageMeter(): () => ProcessUsage {
  let last = process.cpuUsage()
  let lastMs = nodeClock.nowMs()
  return () => {
    const now = process.cpuUsage()
    const nowMs = nodeClock.nowMs()
    const busyMs = (now.user + now.system - last.user - last.system) / 1000
    const cpuPct = nowMs > lastMs ? (100 * busyMs) / (nowMs - lastMs) : 0
    last = now
    lastMs = nowMs
    return { cpuPct, memBytes: process.memoryUsage.rss() }
  }
}
