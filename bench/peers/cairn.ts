/**
 * Cairn itself: `cairn up` with 1 or more metadata servers, 3 chunk servers and 3 replicas in a directory of its own;
 * as it is, or as the experiment build without intents and page checksums.
 */
import fs from 'node:fs'
import path from 'node:path'
import { processorMs, run } from '../process.ts'
import type { Peer } from './peer.ts'

const ROOT = path.join(import.meta.dirname, '..', '..')
const CAIRN = path.join(ROOT, 'scripts', 'cairn')
const MAIN = path.join(ROOT, 'core', 'node', 'main.ts')
const EXPERIMENT = path.join(import.meta.dirname, '..', 'experiment', 'preload.ts')

export class CairnPeer implements Peer {
  readonly name: string
  readonly #directory: string
  readonly #metadataServers: number

  readonly #isExperiment: boolean

  constructor(root: string, metadataServers: number, isExperiment = false) {
    this.name = isExperiment ? 'experiment' : metadataServers === 1 ? 'cairn' : `cairn ${metadataServers} mds`
    this.#directory = path.join(root, 'cairn')
    this.#metadataServers = metadataServers
    this.#isExperiment = isExperiment
  }

  async up(): Promise<string> {
    fs.rmSync(this.#directory, { recursive: true, force: true })
    fs.mkdirSync(this.#directory, { recursive: true })
    // Processes that it starts get the same parameters of node.
    const [program, ...first] = this.#isExperiment
      ? [process.execPath, '--import', EXPERIMENT, MAIN]
      : [CAIRN]
    await run(program ?? CAIRN, [
      ...first,
      'up',
      '--detach',
      '--dir',
      this.#directory,
      '--mds',
      String(this.#metadataServers),
      '--cs',
      '3',
      '--replicas',
      '3',
      '--port',
      '14510',
    ])
    return path.join(this.#directory, 'mnt')
  }

  async down(): Promise<void> {
    await run(CAIRN, ['down', '--dir', this.#directory], { accept: [3] })
    fs.rmSync(this.#directory, { recursive: true, force: true })
  }

  /** User and system time of all its processes since they started. */
  processorMs(): number {
    return processorMs([MAIN, ' up ', `--dir ${this.#directory} `])
  }

  async describe(): Promise<string> {
    if (this.#isExperiment)
      return 'experiment: the same without intents, open list and page checksums (bench/experiment/preload.ts); for comparison only'
    const version = await run(CAIRN, ['--version'])
    return `cairn ${version.trim()}, metadata servers: ${this.#metadataServers}, 3 chunk servers, replicas=3:2; every change is synced on a majority of them before it is answered`
  }
}
