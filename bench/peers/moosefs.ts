/**
 * MooseFS from Debian's packages: master, 3 chunk servers, mfsmount, goal 3, no trash. It refuses 127/8, so
 * it gets a network namespace whose loopback carries one test address; mounts stay visible outside.
 */
import type { ChildProcess } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { run, spawnDaemon, stopDaemon, waitFor } from '../process.ts'
import type { Peer } from './peer.ts'

const ADDRESS = '198.18.78.1'
const NAMESPACE = 'cairn-bench-mfs'
const CHUNK_SERVERS = 3
const PACKAGES = ['moosefs-master', 'moosefs-chunkserver', 'moosefs-client', 'moosefs-cli']

export class MooseFsPeer implements Peer {
  readonly name = 'moosefs'
  readonly #directory: string
  readonly #daemons: ChildProcess[] = []

  constructor(root: string) {
    this.#directory = path.join(root, 'moosefs')
  }

  async describe(): Promise<string> {
    const version = await run('dpkg-query', ['-W', '-f', '${Version}', 'moosefs-master'])
    return `moosefs ${version.trim()}, 1 master, 3 chunk servers, goal 3; its master writes changes in the background, unsynced (CHANGELOG_SAVE_MODE 0, the default)`
  }

  async up(): Promise<string> {
    await installPackages()
    fs.rmSync(this.#directory, { recursive: true, force: true })
    fs.mkdirSync(path.join(this.#directory, 'log'), { recursive: true })
    await this.#makeNamespace()
    await this.#startMaster()
    for (let number = 1; number <= CHUNK_SERVERS; number++) this.#startChunkServer(number)
    const mount = path.join(this.#directory, 'mnt')
    fs.mkdirSync(mount)
    this.#spawn('mount', 'mfsmount', ['-f', mount, '-H', ADDRESS, '-P', '19421'])
    await waitFor('moosefs mount', 30_000, () =>
      fs.readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${mount} `),
    )
    await waitFor('moosefs chunk servers', 30_000, async () => {
      const list = await this.#inside('mfscli', ['-H', ADDRESS, '-P', '19421', '-SCS', '-s,'])
      return list.split('\n').filter((line) => line.includes(`${ADDRESS},`)).length >= CHUNK_SERVERS
    })
    // Its tools talk to the master themselves.
    await this.#inside('mfssetgoal', ['-r', '3', mount])
    await this.#inside('mfssettrashtime', ['-r', '0', mount])
    await pause(2000)
    return mount
  }

  async down(): Promise<void> {
    const mount = path.join(this.#directory, 'mnt')
    await run('umount', ['-l', mount], { accept: [1, 32] })
    for (const daemon of this.#daemons.splice(0).reverse()) await stopDaemon(daemon)
    await run('ip', ['netns', 'del', NAMESPACE], { accept: [1] })
    fs.rmSync(this.#directory, { recursive: true, force: true })
  }

  async #makeNamespace(): Promise<void> {
    await run('ip', ['netns', 'del', NAMESPACE], { accept: [1] })
    await run('ip', ['netns', 'add', NAMESPACE])
    await run('ip', ['-n', NAMESPACE, 'link', 'set', 'lo', 'up'])
    await run('ip', ['-n', NAMESPACE, 'addr', 'add', `${ADDRESS}/32`, 'dev', 'lo'])
  }

  #inside(command: string, parameters: readonly string[]): Promise<string> {
    return run('nsenter', [`--net=/run/netns/${NAMESPACE}`, command, ...parameters])
  }

  #spawn(name: string, command: string, parameters: readonly string[]): void {
    const log = path.join(this.#directory, 'log', `${name}.log`)
    this.#daemons.push(spawnDaemon('nsenter', [`--net=/run/netns/${NAMESPACE}`, command, ...parameters], log))
  }

  async #startMaster(): Promise<void> {
    const directory = path.join(this.#directory, 'master')
    fs.mkdirSync(directory)
    fs.writeFileSync(path.join(directory, 'metadata.mfs'), 'MFSM NEW')
    fs.writeFileSync(path.join(directory, 'exports.cfg'), '* / rw,alldirs,admin,maproot=0:0\n')
    fs.writeFileSync(path.join(directory, 'topology.cfg'), '')
    const settings = {
      WORKING_USER: 'root',
      WORKING_GROUP: 'root',
      DATA_PATH: directory,
      EXPORTS_FILENAME: `${directory}/exports.cfg`,
      TOPOLOGY_FILENAME: `${directory}/topology.cfg`,
      MATOML_LISTEN_HOST: ADDRESS,
      MATOML_LISTEN_PORT: 19419,
      MATOCS_LISTEN_HOST: ADDRESS,
      MATOCS_LISTEN_PORT: 19420,
      MATOCL_LISTEN_HOST: ADDRESS,
      MATOCL_LISTEN_PORT: 19421,
    }
    fs.writeFileSync(path.join(directory, 'master.cfg'), configText(settings))
    this.#spawn('master', 'mfsmaster', ['-f', '-c', path.join(directory, 'master.cfg'), 'start'])
    await waitFor('moosefs master', 30_000, async () => {
      const listening = await this.#inside('ss', ['-Hltn', 'sport', '=', ':19421'])
      return listening.trim() !== ''
    })
  }

  #startChunkServer(number: number): void {
    const directory = path.join(this.#directory, `cs${number}`)
    for (const name of ['hdd', 'var']) fs.mkdirSync(path.join(directory, name), { recursive: true })
    fs.writeFileSync(path.join(directory, 'hdd.cfg'), `~${directory}/hdd\n`)
    const settings = {
      WORKING_USER: 'root',
      WORKING_GROUP: 'root',
      DATA_PATH: `${directory}/var`,
      HDD_CONF_FILENAME: `${directory}/hdd.cfg`,
      MASTER_HOST: ADDRESS,
      MASTER_PORT: 19420,
      MASTER_CONTROL_PORT: 19419,
      BIND_HOST: ADDRESS,
      CSSERV_LISTEN_HOST: ADDRESS,
      CSSERV_LISTEN_PORT: 19430 + number,
      MASTER_RECONNECTION_DELAY: 1,
    }
    fs.writeFileSync(path.join(directory, 'cs.cfg'), configText(settings))
    this.#spawn(`cs${number}`, 'mfschunkserver', ['-f', '-c', path.join(directory, 'cs.cfg'), 'start'])
  }
}

function configText(settings: Readonly<Record<string, string | number>>): string {
  return Object.entries(settings)
    .map(([key, value]) => `${key} = ${value}\n`)
    .join('')
}

/** Services of the packages are never started: only their programs are used. */
async function installPackages(): Promise<void> {
  const missing = []
  for (const name of PACKAGES) {
    const state = await run('dpkg-query', ['-W', '-f', '${db:Status-Status}', name], { accept: [1] })
    if (state !== 'installed') missing.push(name)
  }
  if (missing.length === 0) return
  process.env['DEBIAN_FRONTEND'] = 'noninteractive'
  process.env['RUNLEVEL'] = '1'
  await run('apt-get', ['install', '-y', '--no-install-recommends', ...missing])
}
