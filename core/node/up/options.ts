/** Options of `cairn up`: checked, defaulted, and held against what the directory was made with. */
import fs from 'node:fs'
import path from 'node:path'
import { CairnError } from '../../base/errors.ts'
import { parseReplicas } from '../../cli/commands/attributes.ts'
import { checkClusterName } from '../../cli/etc.ts'
import { evenQuorumWarning } from '../../cli/quorum.ts'
import { UpLayout, type UpOptions } from './layout.ts'

const CHUNK_SERVERS_MAX = 100
const HOSTS_MAX = 32

/** As commander gives them: everything optional, everything text. */
export interface RawUpOptions {
  readonly dir?: string
  readonly cluster?: string
  readonly mds?: string
  readonly cs?: string
  readonly hosts?: string
  readonly replicas?: string
  readonly mount?: string | boolean
  readonly plugins?: string
  readonly port?: string
  readonly restart?: boolean
}

export interface ResolvedUp {
  readonly options: UpOptions
  readonly layout: UpLayout
  /** Things the user should know before it starts. */
  readonly notes: readonly string[]
}

/** Throws USAGE for what cannot be, REFUSED for what would contradict the data that is there. */
export function resolveUpOptions(raw: RawUpOptions): ResolvedUp {
  const layout = new UpLayout(raw.dir ?? './var')
  const saved = layout.readOptions()
  const notes: string[] = []
  const chunkServerCount = count(raw.cs, saved?.chunkServerCount ?? 3, 1, CHUNK_SERVERS_MAX, '--cs')
  const metadataServerCount = count(raw.mds, saved?.metadataServerCount ?? 1, 1, 5, '--mds')
  const hostCount = count(raw.hosts, saved?.hostCount ?? 1, 1, HOSTS_MAX, '--hosts')
  const failureDomain = saved?.failureDomain ?? (hostCount > 1 ? 'host' : 'disk')
  const replicas =
    raw.replicas ??
    saved?.replicas ??
    String(Math.min(3, failureDomain === 'host' ? hostCount : chunkServerCount))
  parseReplicas(replicas)
  const options: UpOptions = {
    directory: layout.root,
    cluster: checkClusterName(raw.cluster ?? saved?.cluster ?? 'demo'),
    metadataServerCount,
    chunkServerCount,
    hostCount,
    replicas,
    failureDomain,
    basePort: count(raw.port, saved?.basePort ?? 0, 0, 65_000, '--port'),
    mountDirectory: mountDirectory(raw, saved, layout, notes),
    restart: raw.restart !== false,
    plugins:
      raw.plugins === undefined
        ? (saved?.plugins ?? ['fuse'])
        : raw.plugins.split(',').filter((name) => name !== ''),
  }
  if (saved !== null) refuseContradictions(options, saved)
  const even = evenQuorumWarning(metadataServerCount)
  if (even !== null) notes.push(even)
  if (failureDomain === 'disk') {
    notes.push(
      'all disks are on one machine: failure-domain=disk (replicas on different disks, not on different hosts)',
    )
  }
  return { options, layout, notes }
}

function refuseContradictions(options: UpOptions, saved: Partial<UpOptions>): void {
  const contradict = (
    what: string,
    was: string | number | undefined,
    is: string | number,
    next: string,
  ): void => {
    if (was !== undefined && was !== is) {
      throw new CairnError(
        'REFUSED',
        `${options.directory} holds a cluster with ${what} ${String(was)}, not ${String(is)}`,
        { next },
      )
    }
  }
  contradict('the name', saved.cluster, options.cluster, 'leave -c out, or choose another --dir')
  contradict('--port', saved.basePort, options.basePort, 'leave --port out, or choose another --dir')
  contradict('--hosts', saved.hostCount, options.hostCount, 'leave --hosts out, or choose another --dir')
  contradict(
    '--replicas',
    saved.replicas,
    options.replicas,
    'leave --replicas out and change it with: cairn set-attr -R -p / replicas=…',
  )
  if ((saved.metadataServerCount ?? 1) > options.metadataServerCount) {
    throw new CairnError(
      'REFUSED',
      `${options.directory} holds ${saved.metadataServerCount} metadata servers, not ${options.metadataServerCount}`,
      { next: 'leave --mds out; take one out of a running cluster with: cairn rm-mds ID' },
    )
  }
  if ((saved.chunkServerCount ?? 0) > options.chunkServerCount) {
    throw new CairnError(
      'REFUSED',
      `${options.directory} holds ${saved.chunkServerCount} chunk servers; --cs ${options.chunkServerCount} would leave data behind`,
      {
        next: 'leave --cs out, or give a higher number to add chunk servers',
      },
    )
  }
}

function mountDirectory(
  raw: RawUpOptions,
  saved: Partial<UpOptions> | null,
  layout: UpLayout,
  notes: string[],
): string | null {
  if (raw.mount === false) return null
  const wanted =
    typeof raw.mount === 'string' ? path.resolve(raw.mount) : (saved?.mountDirectory ?? layout.mountDirectory)
  const reason = whyNoMount()
  if (reason === null) return wanted
  if (typeof raw.mount === 'string') throw new CairnError('REFUSED', `cannot mount on ${wanted}: ${reason}`)
  notes.push(`running without the mount: ${reason}`)
  return null
}

/** Null when this process may mount. */
export function whyNoMount(): string | null {
  if (process.getuid?.() !== 0) return 'mounting needs root'
  if (!fs.existsSync('/dev/fuse')) return 'this machine has no /dev/fuse'
  return null
}

function count(
  text: string | undefined,
  byDefault: number,
  minimum: number,
  maximum: number,
  option: string,
): number {
  if (text === undefined) return byDefault
  const value = /^\d{1,6}$/.test(text) ? Number(text) : Number.NaN
  if (value >= minimum && value <= maximum) return value
  throw new CairnError('USAGE', `${option} ${text} is not possible`, {
    next: `give a number from ${minimum} to ${maximum}`,
  })
}
