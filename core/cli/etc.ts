/**
 * The configuration root of a host (default /etc/cairn): `host_id`, `location`, `cairn.json`,
 * `clusters/NAME/bs.list` and `auth_digest.key` (read by platform/node/key-file.ts). Same files as the guide's, other root. Reads and writes them; knows nothing of
 * what they are used for. Guide: Configuring Failure Domains, Configuring Cluster Discovery.
 */
import fs from 'node:fs'
import path from 'node:path'
import { CairnError } from '../base/errors.ts'
import type { Address } from '../platform/network.ts'
import { KEY_FILE } from '../platform/node/key-file.ts'
import { randomBytes } from 'node:crypto'

export const BASE_PORT_DEFAULT = 2510
export const ETC_DEFAULT = '/etc/cairn'
const BOOTSTRAP_ADDRESSES_MAX = 64

export interface HostIdentity {
  /** Random hexadecimal, made at first use. */
  readonly hostId: string
  /** room.row.rack, default 0.0.0. */
  readonly location: string
}

const CLUSTER_NAME = /^[A-Za-z0-9_-]{1,63}$/

/** Throws USAGE unless `name` is a legal cluster name. */
export function checkClusterName(name: string): string {
  if (CLUSTER_NAME.test(name)) return name
  throw new CairnError('USAGE', `'${name}' is no cluster name`, {
    next: 'use 1 to 63 of the characters A-Z a-z 0-9 _ -',
  })
}

/** "HOST", "HOST:PORT" or "[V6]:PORT"; the port is the base port. `portDefault` 0: any. Throws USAGE. */
export function parseAddress(text: string, portDefault = BASE_PORT_DEFAULT): Address {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s]+))(?::(\d{1,5}))?$/.exec(text.trim())
  const host = match?.[1] ?? match?.[2]
  const port = match?.[3] === undefined ? portDefault : Number(match[3])
  const isPort = (port >= 1 && port <= 65534) || (match?.[3] === undefined && port === portDefault)
  if (host === undefined || !isPort) {
    throw new CairnError('USAGE', `'${text}' is no address`, {
      next: 'write HOST, HOST:PORT or [IPv6]:PORT with a port from 1 to 65534',
    })
  }
  return { host, port }
}

export class EtcDirectory {
  readonly root: string

  constructor(root: string) {
    this.root = path.resolve(root)
  }

  get configFile(): string {
    return path.join(this.root, 'cairn.json')
  }

  clusterDirectory(cluster: string): string {
    return path.join(this.root, 'clusters', checkClusterName(cluster))
  }

  /** The cluster key of this host. */
  keyFile(cluster: string): string {
    return path.join(this.clusterDirectory(cluster), KEY_FILE)
  }

  /** Names of clusters this host knows. */
  clusters(): string[] {
    try {
      return fs.readdirSync(path.join(this.root, 'clusters')).sort()
    } catch (error) {
      if (isMissing(error)) return []
      throw error
    }
  }

  /** Reads `host_id` and `location`; makes a host id when there is none yet. */
  hostIdentity(): HostIdentity {
    const idFile = path.join(this.root, 'host_id')
    let hostId = readText(idFile)?.trim()
    if (hostId === undefined || hostId === '') {
      hostId = randomBytes(16).toString('hex')
      fs.mkdirSync(this.root, { recursive: true })
      fs.writeFileSync(idFile, `${hostId}\n`)
    }
    if (!/^[0-9a-fA-F]{4,64}$/.test(hostId)) {
      throw new CairnError('BAD_CONFIG', `${idFile} does not hold a host id but '${hostId.slice(0, 80)}'`, {
        next: 'remove the file: a new random id is made at the next start',
      })
    }
    const location = readText(path.join(this.root, 'location'))?.trim() ?? '0.0.0'
    if (!/^[^.\s]+\.[^.\s]+\.[^.\s]+$/.test(location)) {
      throw new CairnError('BAD_CONFIG', `${this.root}/location holds '${location.slice(0, 80)}'`, {
        next: 'write ROOM.ROW.RACK, for example 0.0.1',
      })
    }
    return { hostId, location }
  }

  /** Base addresses of metadata servers from `bs.list`; empty when there is none. */
  bootstrapList(cluster: string): Address[] {
    const file = path.join(this.clusterDirectory(cluster), 'bs.list')
    const addresses: Address[] = []
    for (const [lineIndex, line] of (readText(file) ?? '').split('\n').entries()) {
      const text = line.replace(/#.*/, '').trim()
      if (text === '') continue
      try {
        addresses.push(parseAddress(text))
      } catch (error) {
        throw new CairnError('BAD_CONFIG', `${file}, line ${lineIndex + 1}: ${(error as Error).message}`, {
          next: 'write one HOST[:PORT] a line',
        })
      }
      if (addresses.length > BOOTSTRAP_ADDRESSES_MAX) {
        throw new CairnError('BAD_CONFIG', `${file} has more than ${BOOTSTRAP_ADDRESSES_MAX} addresses`)
      }
    }
    return addresses
  }

  addBootstrapAddresses(cluster: string, addresses: readonly Address[]): void {
    for (const address of addresses) this.addBootstrapAddress(cluster, address)
  }

  /** Metadata servers have moved: each line with an old address gets the new one, what is missing is added. */
  moveBootstrapAddresses(cluster: string, moves: readonly { from: Address; to: Address }[]): void {
    const file = path.join(this.clusterDirectory(cluster), 'bs.list')
    const movedTo = new Map(moves.map(({ from, to }) => [formatBase(from), formatBase(to)]))
    const lines = (readText(file) ?? '').split('\n').map((line) => {
      const [, given = '', rest = ''] = /^([^#]*?)(\s*(?:#.*)?)$/.exec(line) ?? []
      const to = given.trim() === '' ? undefined : movedTo.get(formatBase(parseAddress(given)))
      return to === undefined ? line : `${to}${rest}`
    })
    const text = lines.join('\n')
    if (text !== '') {
      fs.writeFileSync(`${file}.new`, text)
      fs.renameSync(`${file}.new`, file)
    }
    this.addBootstrapAddresses(
      cluster,
      moves.map(({ to }) => to),
    )
  }

  /** Adds an address to `bs.list` unless it is there. */
  addBootstrapAddress(cluster: string, address: Address): void {
    const known = this.bootstrapList(cluster)
    if (known.some((entry) => entry.host === address.host && entry.port === address.port)) return
    const directory = this.clusterDirectory(cluster)
    fs.mkdirSync(directory, { recursive: true })
    fs.appendFileSync(path.join(directory, 'bs.list'), `${formatBase(address)}\n`)
  }
}

export function formatBase(address: Address): string {
  return address.host.includes(':') ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`
}

function readText(file: string): string | undefined {
  try {
    return fs.readFileSync(file, 'utf8')
  } catch (error) {
    if (isMissing(error)) return undefined
    throw error
  }
}

export function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR')
}
