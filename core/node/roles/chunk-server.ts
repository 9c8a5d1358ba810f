/** `cairn cs -r DIR`: a chunk server on its repository, until it is stopped. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { CairnError, codeOf } from '../../base/errors.ts'
import { ChunkServer } from '../../chunkserver/index.ts'
import { hostAuthenticator } from '../../cli/authentication.ts'
import type { EtcDirectory } from '../../cli/etc.ts'
import { Discovery } from '../../discovery/discovery.ts'
import type { MetadataServers } from '../../discovery/metadata-servers.ts'
import type { Logger } from '../../platform/logger.ts'
import type { Address } from '../../platform/network.ts'
import { NodeDisk } from '../../platform/node/disk.ts'
import { nodeClock, nodeNetwork, nodeRandom } from '../../platform/node/platform.ts'
import type { Authenticator } from '../../wire/types.ts'
import { isPortFree, parsePortRange } from '../local-address.ts'
import { lockRepository } from '../repository-lock.ts'
import { bootPlugins, type HostHandle } from '../plugins.ts'
import type { RunningRole } from '../role-process.ts'
import { readListenSetting } from '../listen-setting.ts'

export interface ChunkServerRole {
  readonly cluster: string
  /** Base addresses an administrator gave; discovery plugins may know more. */
  readonly configuredServers: () => readonly Address[]
  readonly repository: string
  readonly etc: EtcDirectory
  readonly logger: Logger
}

/** Two servers may reach for the same free port: try a few times. */
const LISTEN_ATTEMPTS_MAX = 10

export async function startChunkServer(role: ChunkServerRole): Promise<RunningRole> {
  if (!fs.existsSync(role.repository)) {
    throw new CairnError('NOT_FOUND', `the repository ${role.repository} does not exist (flag R)`, {
      next: 'attach or mount the disk, or make a chunk server with: cairn make-cs -r DIR',
    })
  }
  const authenticator = hostAuthenticator(role.etc, role.cluster, role.logger)
  const lock = lockRepository(role.repository)
  const plugins = await bootPlugins({
    role: 'cs',
    etc: role.etc,
    logger: role.logger,
    socketName: `cs-${path.basename(role.repository)}`,
  })
  let endedBecause: (reason: string) => void = () => {}
  const ended = new Promise<string>((resolve) => {
    endedBecause = resolve
  })
  const server = await listenOnFreePort(
    role,
    findServers(role, plugins),
    readListenSetting(role.repository),
    plugins.configuration.core.cs.port_range,
    authenticator,
    () => endedBecause('shut down by an administrator'),
  )
  return {
    ended,
    async stop() {
      await server.close()
      await plugins.stop()
      lock.release()
    },
  }
}

/** Asks nobody yet; throws when there is nobody to ask. */
function findServers(role: ChunkServerRole, { hooks }: HostHandle): MetadataServers {
  const { cluster, configuredServers, logger } = role
  const servers = new Discovery({
    cluster,
    configured: configuredServers,
    resolve: (name) => hooks.discovery.resolve.call(name),
    clock: nodeClock,
    random: nodeRandom,
    logger,
  })
  if (servers.list().length > 0 || hooks.discovery.resolve.tapCount > 0) return servers
  throw new CairnError('UNREACHABLE', `no metadata server of cluster '${cluster}' is known`, {
    next: `put HOST:PORT of one into ${role.etc.clusterDirectory(cluster)}/bs.list, or enable a discovery plugin`,
  })
}

async function listenOnFreePort(
  role: ChunkServerRole,
  metadataServers: MetadataServers,
  setting: Address,
  portRange: string,
  authenticator: Authenticator,
  onShutdown: () => void,
): Promise<ChunkServer> {
  const { first, last } = parsePortRange(portRange)
  const identity = role.etc.hostIdentity()
  for (let attempt = 1; ; attempt++) {
    const server = new ChunkServer({
      disk: new NodeDisk(role.repository),
      clock: nodeClock,
      random: nodeRandom,
      network: nodeNetwork,
      logger: role.logger,
      clusterName: role.cluster,
      metadataAddresses: metadataServers,
      listen: {
        host: setting.host,
        port: setting.port !== 0 ? setting.port : await firstFreePort(setting.host, first, last),
      },
      hostId: identity.hostId,
      hostName: os.hostname(),
      location: identity.location,
      onShutdown,
      authenticator,
    })
    try {
      await server.start()
      return server
    } catch (error) {
      await server.close()
      if (setting.port !== 0 || attempt === LISTEN_ATTEMPTS_MAX || codeOf(error) !== 'EADDRINUSE') throw error
    }
  }
}

async function firstFreePort(host: string, first: number, last: number): Promise<number> {
  for (let port = first; port <= last; port++) if (await isPortFree(host, port)) return port
  throw new CairnError('FAILED', `all ports from ${first} to ${last} are in use on ${host}`, {
    next: 'widen cs.port_range in cairn.json',
  })
}
