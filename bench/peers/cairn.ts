/** Cairn itself: `cairn up` with 1 or more metadata servers, 3 chunk servers and 3 replicas in a directory of its own. */
import fs from 'node:fs'
import path from 'node:path'
import { run } from '../process.ts'
import type { Peer } from './peer.ts'

const CAIRN = path.join(import.meta.dirname, '..', '..', 'scripts', 'cairn')

export class CairnPeer implements Peer {
  readonly name: string
  readonly #directory: string
  readonly #metadataServers: number

  constructor(root: string, metadataServers: number) {
    this.name = metadataServers === 1 ? 'cairn' : `cairn ${metadataServers} mds`
    this.#directory = path.join(root, 'cairn')
    this.#metadataServers = metadataServers
  }

  async up(): Promise<string> {
    fs.rmSync(this.#directory, { recursive: true, force: true })
    fs.mkdirSync(this.#directory, { recursive: true })
    await run(CAIRN, [
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

  async describe(): Promise<string> {
    const version = await run(CAIRN, ['--version'])
    return `cairn ${version.trim()}, metadata servers: ${this.#metadataServers}, 3 chunk servers, replicas=3:2; every change is synced on a majority of them before it is answered`
  }
}
