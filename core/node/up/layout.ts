/**
 * Where `cairn up` keeps things under its directory, and the options a directory was made with.
 *
 *   D/up.json            options of the first `up`; later ones may change only what does not touch data
 *   D/up.sock            control socket of the running supervisor (0600)
 *   D/etc                configuration root (host 1, and the clients)
 *   D/etc/password       generated password of the cluster (0600)
 *   D/hosts/2/etc        configuration roots of further pretended hosts (--hosts)
 *   D/mds1 D/cs1 …       repositories
 *   D/log/NAME.log       log files
 *   D/mnt                the mount
 */
import fs from 'node:fs'
import path from 'node:path'
import { CairnError } from '../../base/errors.ts'
import { EtcDirectory, isMissing } from '../../cli/etc.ts'
import { nodeRandom } from '../../platform/node/platform.ts'

export interface UpOptions {
  readonly directory: string
  readonly cluster: string
  readonly metadataServerCount: number
  readonly chunkServerCount: number
  readonly hostCount: number
  readonly replicas: string
  readonly failureDomain: string
  readonly basePort: number
  readonly mountDirectory: string | null
  readonly restart: boolean
  readonly plugins: readonly string[]
}

const PASSWORD_BYTES = 18

export class UpLayout {
  readonly root: string

  constructor(directory: string) {
    this.root = path.resolve(directory)
  }

  get optionsFile(): string {
    return path.join(this.root, 'up.json')
  }
  get controlSocket(): string {
    return path.join(this.root, 'up.sock')
  }
  get logDirectory(): string {
    return path.join(this.root, 'log')
  }
  get mountDirectory(): string {
    return path.join(this.root, 'mnt')
  }
  logFile(name: string): string {
    return path.join(this.logDirectory, `${name}.log`)
  }
  /** Hosts are counted from 1. */
  etc(host: number): string {
    return host === 1 ? path.join(this.root, 'etc') : path.join(this.root, 'hosts', String(host), 'etc')
  }
  metadataRepository(number: number): string {
    return path.join(this.root, `mds${number}`)
  }
  chunkRepository(number: number): string {
    return path.join(this.root, `cs${number}`)
  }

  /** Made at random when first asked for. */
  password(): string {
    const file = path.join(this.etc(1), 'password')
    try {
      return fs.readFileSync(file, 'utf8').trim()
    } catch (error) {
      if (!isMissing(error)) throw error
    }
    const password = nodeRandom.bytes(PASSWORD_BYTES).toString('base64url')
    fs.mkdirSync(this.etc(1), { recursive: true })
    fs.writeFileSync(file, `${password}\n`, { mode: 0o600, flag: 'wx' })
    return password
  }

  /** Throws REFUSED when there is metadata and no key to open it with. */
  refuseLostKey(cluster: string): void {
    const keyFile = new EtcDirectory(this.etc(1)).keyFile(cluster)
    if (fs.existsSync(keyFile)) return
    throw new CairnError(
      'REFUSED',
      `${this.root} holds a cluster without its key: it was made before there were any, or the key is lost`,
      { next: `restore ${keyFile}, or choose another --dir` },
    )
  }

  readOptions(): Partial<UpOptions> | null {
    try {
      return JSON.parse(fs.readFileSync(this.optionsFile, 'utf8')) as Partial<UpOptions>
    } catch (error) {
      if (isMissing(error)) return null
      throw new CairnError('BAD_CONFIG', `${this.optionsFile} cannot be read: ${(error as Error).message}`, {
        next: 'restore the file, or choose another --dir',
        cause: error,
      })
    }
  }

  writeOptions(options: UpOptions): void {
    const temporary = `${this.optionsFile}.new`
    fs.writeFileSync(temporary, `${JSON.stringify(options, null, 2)}\n`)
    fs.renameSync(temporary, this.optionsFile)
  }
}
