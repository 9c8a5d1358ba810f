/**
 * `cairn up`: a whole cluster of real processes on loopback under one directory. Makes what is missing
 * with the same code as make-mds and make-cs, starts the roles, waits until the cluster is healthy, says
 * where everything is, and stops it cleanly.
 */
import fs from 'node:fs'
import module from 'node:module'
import { CairnError } from '../../base/errors.ts'
import { EtcDirectory } from '../../cli/etc.ts'
import { connectAdmin } from '../../cli/admin.ts'
import { authenticateHost } from '../../cli/authentication.ts'
import type { Logger } from '../../platform/logger.ts'
import { type Address, formatAddress } from '../../platform/network.ts'
import { nodeClock } from '../../platform/node/platform.ts'
import type { ClusterStatistics } from '../../wire/messages/statistics.ts'
import { makeChunkServer } from '../commands/make-cs.ts'
import { joinMetadataServer } from '../commands/join-mds.ts'
import { makeMetadataServer } from '../commands/make-mds.ts'
import { readListenSetting } from '../listen-setting.ts'
import { cairnCommand, pause } from '../self.ts'
import { type ControlServer, serveControl } from '../control-socket.ts'
import { askUpStatus, type UpStatus } from './control.ts'
import type { UpLayout, UpOptions } from './layout.ts'
import { isMounted } from './mounts.ts'
import { freeBasePort, LOOPBACK, metadataAddress, waitForPorts } from './ports.ts'
import { ServiceProcess } from './service-process.ts'

const HEALTHY_DEADLINE_MS = 120_000
const POLL_MS = 100
/** A process that died this often before the cluster was healthy will not come up by waiting. */
const EARLY_RESTARTS_MAX = 3
/** Young objects of the metadata server: 60 MB less resident with 100,000 files, at the same speed. */
const METADATA_NODE_OPTIONS = '--max-semi-space-size=4'
/** FUSE reads and disk syncs each occupy a thread of the pool while they wait. */
const THREAD_POOL_SIZE: Readonly<Record<string, string>> = { mds: '4', cs: '8' }

export class Up {
  readonly #options: UpOptions
  readonly #layout: UpLayout
  readonly #logger: Logger
  readonly #services: ServiceProcess[] = []
  /** Those of earlier runs. */
  #knownChunkServerCount = 0
  /** A metadata server was added in this run. */
  #hasJoined = false
  #phase: UpStatus['phase'] = 'starting'
  #failure: string | null = null
  /** Base addresses of the metadata servers. */
  #bases: readonly Address[] = []
  #control: ControlServer | null = null
  #stopRequest: (() => void) | null = null
  #resolveStopped: () => void = () => {}
  readonly #stopped = new Promise<void>((resolve) => {
    this.#resolveStopped = resolve
  })
  /** Somebody asked for a stop through the control socket. */
  readonly stopRequested: Promise<void>

  constructor(options: UpOptions, layout: UpLayout, logger: Logger) {
    this.#options = options
    this.#layout = layout
    this.#logger = logger
    this.stopRequested = new Promise((resolve) => {
      this.#stopRequest = resolve
    })
  }

  get status(): UpStatus {
    return {
      pid: process.pid,
      cluster: this.#options.cluster,
      phase: this.#phase,
      failure: this.#failure,
      endpoints: {
        'metadata server': this.#bases.map(formatAddress).join(', '),
        ...(this.#options.mountDirectory === null ? {} : { mount: this.#options.mountDirectory }),
        logs: this.#layout.logDirectory,
        configuration: this.#layout.etc(1),
      },
      processes: this.#services.map((service) => service.status()),
    }
  }

  /** Resolves when the cluster is healthy and mounted. Rejects with what went wrong and where to look. */
  async start(): Promise<ClusterStatistics> {
    fs.mkdirSync(this.#layout.logDirectory, { recursive: true })
    await refuseSecond(this.#layout)
    this.#control = await serveControl(this.#layout.controlSocket, {
      'up.status': () => this.status,
      'up.stop': async () => {
        this.#stopRequest?.()
        await this.#stopped
        return this.status
      },
    })
    try {
      await this.#prepare()
      await keepCompiledCode()
      this.#startServers()
      const statistics = await this.#waitUntilHealthy()
      if (this.#options.mountDirectory !== null) await this.#mount(this.#options.mountDirectory)
      this.#phase = 'healthy'
      return statistics
    } catch (error) {
      this.#failure = (error as Error).message
      throw error
    }
  }

  async #prepare(): Promise<void> {
    const { cluster, basePort, metadataServerCount } = this.#options
    const port = basePort !== 0 ? basePort : await freeBasePort(metadataServerCount)
    this.#bases = numbers(metadataServerCount).map((number) => this.#baseOf(number, port))
    await waitForPorts(this.#bases)
    this.#knownChunkServerCount = this.#layout.readOptions()?.chunkServerCount ?? 0
    this.#layout.writeOptions({ ...this.#options, basePort: port })
    for (let host = 1; host <= this.#options.hostCount; host++) {
      const etc = new EtcDirectory(this.#layout.etc(host))
      etc.hostIdentity()
      etc.addBootstrapAddresses(cluster, this.#bases)
      if (!fs.existsSync(etc.configFile)) {
        fs.writeFileSync(
          etc.configFile,
          `${JSON.stringify({ plugins: { enabled: this.#options.plugins } }, null, 2)}\n`,
        )
      }
    }
    const metadata = this.#layout.metadataRepository(1)
    if (!fs.existsSync(metadata)) {
      await makeMetadataServer({
        cluster,
        address: metadataAddress(port, 1),
        repository: metadata,
        etc: new EtcDirectory(this.#layout.etc(1)),
        replicas: this.#options.replicas,
        failureDomain: this.#options.failureDomain,
        password: this.#layout.password(),
      })
    } else this.#layout.refuseLostKey(cluster)
  }

  /** Where it was made, unless it was moved since (configure-mds). */
  #baseOf(number: number, basePort: number): Address {
    const repository = this.#layout.metadataRepository(number)
    try {
      if (fs.existsSync(repository)) return readListenSetting(repository)
    } catch (error) {
      // The server itself will say what is wrong with it, and the others may do without.
      this.#logger.warn('the address of a metadata server is not known', { reason: (error as Error).message })
    }
    return metadataAddress(basePort, number)
  }

  #startServers(): void {
    // All that are there: one alone may be no majority.
    for (const number of numbers(this.#options.metadataServerCount))
      if (fs.existsSync(this.#layout.metadataRepository(number))) this.#startMetadataServer(number)
    // The chunk servers are made once the metadata server answers: make-cs asks it for the cluster's identity.
  }

  #startMetadataServer(number: number): void {
    const address = this.#bases[number - 1]
    if (address === undefined) return
    const repository = this.#layout.metadataRepository(number)
    this.#addService(
      `mds${number}`,
      'mds',
      ['mds', '-r', repository],
      this.#hostOf(number),
      formatAddress(address),
    )
  }

  /** Servers go round the pretended hosts. */
  #hostOf(number: number): number {
    return ((number - 1) % this.#options.hostCount) + 1
  }

  /** Those that are not there yet join the ones that run. */
  async #joinMetadataServers(): Promise<void> {
    for (const number of numbers(this.#options.metadataServerCount)) {
      const repository = this.#layout.metadataRepository(number)
      const address = this.#bases[number - 1]
      if (fs.existsSync(repository) || address === undefined) continue
      const etc = new EtcDirectory(this.#layout.etc(this.#hostOf(number)))
      const { cluster } = this.#options
      await joinMetadataServer({ cluster, address, repository, etc, metadataServers: this.#bases })
      this.#startMetadataServer(number)
      this.#hasJoined = true
    }
  }

  #addService(
    name: string,
    role: 'mds' | 'cs' | 'mount',
    parameters: readonly string[],
    host: number,
    address: string,
  ): void {
    const logFile = this.#layout.logFile(name)
    const service = new ServiceProcess(
      {
        name,
        role,
        address,
        logFile,
        command: cairnCommand([
          '--etc',
          this.#layout.etc(host),
          '-c',
          this.#options.cluster,
          ...parameters,
          '--log',
          logFile,
          '--supervised',
        ]),
        environment: {
          UV_THREADPOOL_SIZE: THREAD_POOL_SIZE[role] ?? '4',
          ...(role === 'mds' ? { NODE_OPTIONS: METADATA_NODE_OPTIONS } : {}),
        },
      },
      {
        clock: nodeClock,
        logger: this.#logger,
        restart: this.#options.restart,
        onOrderlyEnd: () => this.#maybeEnd(),
      },
    )
    this.#services.push(service)
    service.start()
  }

  /** After `cairn shutdown` nothing is left to supervise. */
  #maybeEnd(): void {
    const servers = this.#services.filter((service) => service.definition.role !== 'mount')
    const hasEnded = (service: ServiceProcess): boolean =>
      service.state === 'stopped' || service.state === 'removed'
    if (this.#phase === 'healthy' && servers.every(hasEnded)) this.#stopRequest?.()
  }

  async #waitUntilHealthy(): Promise<ClusterStatistics> {
    const deadlineMs = nodeClock.nowMs() + HEALTHY_DEADLINE_MS
    let chunkServersStarted = false
    let last = 'the metadata server does not answer'
    while (nodeClock.nowMs() < deadlineMs) {
      this.#failOnDeadService()
      try {
        const statistics = await this.#askStatistics()
        await this.#authenticateHosts()
        await this.#joinMetadataServers()
        if (!chunkServersStarted) {
          chunkServersStarted = true
          await this.#startChunkServers()
        }
        const active = statistics.cs.filter((server) => server.status === 'active').length
        const voting = statistics.mds.filter((server) => server.status === 'active').length
        // Some may have been taken out by hand since they were made.
        const members = Math.max(
          statistics.mds.length,
          this.#hasJoined ? this.#options.metadataServerCount : 0,
        )
        const isWhole = active >= this.#options.chunkServerCount && voting >= members
        if (isWhole && statistics.status === 'healthy') return statistics
        last = `${voting} of ${members} metadata servers and ${active} of ${this.#options.chunkServerCount} chunk servers are active, the cluster is ${statistics.status}`
      } catch (error) {
        if (!(error instanceof CairnError) || error.code === 'USAGE') throw error
        last = error.message
      }
      await pause(POLL_MS)
    }
    throw new CairnError(
      'TIMED_OUT',
      `the cluster is not healthy after ${HEALTHY_DEADLINE_MS / 1000} s: ${last}`,
      {
        next: `look into the logs in ${this.#layout.logDirectory}`,
      },
    )
  }

  async #askStatistics(): Promise<ClusterStatistics> {
    const admin = await connectAdmin(
      this.#options.cluster,
      this.#bases,
      new EtcDirectory(this.#layout.etc(1)),
    )
    try {
      return (await admin.metadata.call('admin.stat', {})) as ClusterStatistics
    } finally {
      await admin.close()
    }
  }

  /** Each pretended host proves the password, as real ones do. */
  async #authenticateHosts(): Promise<void> {
    const { cluster, hostCount } = this.#options
    for (let host = 2; host <= hostCount; host++) {
      const etc = new EtcDirectory(this.#layout.etc(host))
      if (fs.existsSync(etc.keyFile(cluster))) continue
      const password = this.#layout.password()
      await authenticateHost({ cluster, metadataServers: this.#bases, password }, etc)
    }
  }

  async #startChunkServers(): Promise<void> {
    for (let number = 1; number <= this.#options.chunkServerCount; number++) {
      const host = this.#hostOf(number)
      const repository = this.#layout.chunkRepository(number)
      // A disk may be mounted there already. An empty directory where data was is a disk that is not mounted.
      const isNew = number > this.#knownChunkServerCount && isEmptyDirectory(repository)
      if (isNew || !fs.existsSync(repository)) {
        await makeChunkServer({
          cluster: this.#options.cluster,
          metadataServers: this.#bases,
          remembered: this.#bases,
          repository,
          etc: new EtcDirectory(this.#layout.etc(host)),
          tier: 0,
          checksums: true,
          listen: null,
          // One machine plays all hosts here: shared disks are expected.
          warn: null,
        })
      }
      this.#addService(`cs${number}`, 'cs', ['cs', '-r', repository], host, LOOPBACK)
    }
  }

  async #mount(directory: string): Promise<void> {
    fs.mkdirSync(directory, { recursive: true })
    this.#addService('mount', 'mount', ['mount', directory, '--foreground'], 1, directory)
    const deadlineMs = nodeClock.nowMs() + HEALTHY_DEADLINE_MS
    while (!isMounted(directory)) {
      this.#failOnDeadService()
      if (nodeClock.nowMs() > deadlineMs) {
        throw new CairnError('TIMED_OUT', `${directory} is not mounted`, {
          next: `look into ${this.#layout.logFile('mount')}`,
        })
      }
      await pause(POLL_MS)
    }
  }

  #failOnDeadService(): void {
    for (const service of this.#services) {
      const { restarts, state } = service.status()
      if (state !== 'stopped' && restarts < EARLY_RESTARTS_MAX) continue
      throw new CairnError(
        'FAILED',
        `${service.definition.name} does not start: ${service.errorTail || 'it says nothing'}`,
        {
          next: `look into ${service.definition.logFile}`,
        },
      )
    }
  }

  /** Guide: shut down exports, mounts, metadata, chunk servers. Clients first, so that they can flush. */
  async stop(): Promise<void> {
    this.#phase = 'stopping'
    const byRole = (role: string): ServiceProcess[] =>
      this.#services.filter((service) => service.definition.role === role)
    for (const role of ['mount', 'cs', 'mds']) {
      await Promise.all(byRole(role).map((service) => service.stop()))
    }
    this.#resolveStopped()
    await pause(POLL_MS)
    this.#control?.close()
  }
}

/** 1 … count. */
function numbers(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index + 1)
}

function isEmptyDirectory(directory: string): boolean {
  return fs.existsSync(directory) && fs.readdirSync(directory).every((name) => name === 'lost+found')
}

/** Compiles here what all servers need, so that not each of them does it (see scripts/cairn). */
async function keepCompiledCode(): Promise<void> {
  await import('../roles/metadata-server.ts')
  await import('../roles/chunk-server.ts')
  module.flushCompileCache()
}

/** Throws REFUSED when a supervisor is at work in this directory. */
export async function refuseSecond(layout: UpLayout): Promise<void> {
  const running = await askUpStatus(layout.controlSocket)
  if (running === null) return
  throw new CairnError('REFUSED', `a cluster is already running in ${layout.root} (process ${running.pid})`, {
    next: `see it with: cairn status --dir ${layout.root}; stop it with: cairn down --dir ${layout.root}`,
  })
}
