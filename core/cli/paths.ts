/** PATH of a command: on a mount of this host, or with -p inside the cluster. */
import fs from 'node:fs'
import path from 'node:path'
import { CairnError, codeOf } from '../base/errors.ts'
import type { AdminConnection } from './admin.ts'

export interface PathOptions {
  readonly p?: boolean
}

export type Located = { cluster?: string } & ({ inode: number } | { path: string })

/** Throws NOT_FOUND, USAGE. */
export function locate(target: string, options: PathOptions): Located {
  if (options.p === true) return { path: target }
  const absolute = path.resolve(target)
  const status = fs.lstatSync(absolute, { throwIfNoEntry: false })
  if (status === undefined) {
    throw new CairnError('NOT_FOUND', `${target}: no such file or directory`, {
      next: 'name a file on a mount, or with -p a path inside the cluster',
    })
  }
  const cluster = clusterOfMount(fs.realpathSync(absolute), fs.readFileSync('/proc/self/mountinfo', 'utf8'))
  if (cluster === undefined) {
    throw new CairnError('USAGE', `${target} is not on a Cairn mount`, {
      next: 'name a path inside the cluster with -p, for example: -p /',
    })
  }
  return { cluster, inode: status.ino }
}

/** The cluster that is mounted where `file` lies; undefined when something else is. */
export function clusterOfMount(file: string, mountInfo: string): string | undefined {
  let best = { point: '', cluster: undefined as string | undefined }
  for (const line of mountInfo.split('\n')) {
    const [left = '', right = ''] = line.split(' - ')
    const point = (left.split(' ')[4] ?? '').replace(/\\(\d{3})/g, (_, octal: string) =>
      String.fromCharCode(Number.parseInt(octal, 8)),
    )
    const below = point === '/' || file === point || file.startsWith(`${point}/`)
    if (point === '' || !below || point.length < best.point.length) continue
    const [type, source = ''] = right.split(' ')
    best = { point, cluster: type === 'fuse.cairn' ? /^cairn:\/\/(.+)$/.exec(source)?.[1] : undefined }
  }
  return best.cluster
}

/** Rejects with NOT_FOUND. */
export async function inodeOf(admin: AdminConnection, located: Located): Promise<number> {
  if ('inode' in located) return located.inode
  try {
    const { attributes } = await admin.metadata.call('fs.resolve', { path: located.path })
    return attributes.inode
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error
    throw new CairnError('NOT_FOUND', `${located.path}: no such file or directory in the cluster`, {
      next: 'with -p, name a path inside the cluster, for example: -p /',
      cause: error,
    })
  }
}
