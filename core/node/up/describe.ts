/** What `cairn up` says when it is up. */
import path from 'node:path'
import type { ClusterStatistics } from '../../wire/messages/statistics.ts'
import type { UpStatus } from './control.ts'

/** What a newcomer should see when it is up. */
export function describeUp(up: UpStatus, statistics: ClusterStatistics, directory: string): string[] {
  const cairn = shortest(path.join(import.meta.dirname, '..', '..', '..', 'scripts', 'cairn'))
  const relative = shortest(directory)
  const here = `--etc ${relative}/etc`
  const mount = up.endpoints['mount']
  const lines = [
    '',
    `Cluster '${up.cluster}' is ${statistics.status}: ${statistics.mds.length} metadata server${statistics.mds.length > 1 ? 's' : ''}, ${statistics.cs.length} chunk servers, ` +
      `${statistics.replication.normal} replicas (writes need ${statistics.replication.minimum})`,
    ...Object.entries(up.endpoints).map(([name, value]) => `  ${name.padEnd(16)} ${value}`),
    '',
    'Try next:',
    ...(mount === undefined ? [] : [`  cp -a /usr/share/doc ${mount}/        # keep some files`]),
    `  ${cairn} ${here} stat`,
    `  ${cairn} ${here} get-event`,
    `  kill -9 PID of a chunk server     # see: ${cairn} status --dir ${relative}; nothing is lost`,
    `  ${cairn} ${here} fsck`,
  ]
  return lines
}

/** As one would type it here. */
function shortest(file: string): string {
  const relative = path.relative(process.cwd(), file) || '.'
  return relative.length < file.length ? relative : file
}
