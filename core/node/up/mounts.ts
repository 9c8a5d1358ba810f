/** What is mounted, from /proc/self/mountinfo. */
import fs from 'node:fs'
import path from 'node:path'

/** Is a Cairn file system mounted exactly on `directory`? */
export function isMounted(directory: string): boolean {
  const wanted = path.resolve(directory)
  return fs
    .readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .some((line) => {
      const [left = '', right = ''] = line.split(' - ')
      const point = (left.split(' ')[4] ?? '').replace(/\\(\d{3})/g, (_, octal: string) =>
        String.fromCharCode(Number.parseInt(octal, 8)),
      )
      return point === wanted && right.startsWith('fuse.cairn ')
    })
}
