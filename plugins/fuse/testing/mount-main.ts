/**
 * Mounts the in-memory client in a process of its own: `node mount-main.ts DIRECTORY [null]`. Prints one
 * line when the mount is usable and ends with it. Tests and measurements start this.
 */
import { mountFuse } from '../mount/mount.ts'
import type { MountLogger } from '../protocol/types.ts'
import { MemoryClient } from './memory-client.ts'

const log = (level: string) => (message: string, fields?: object) => {
  process.stderr.write(`${level} ${message} ${JSON.stringify(fields ?? {})}\n`)
}
const logger: MountLogger = {
  debug: () => {},
  info: log('info'),
  warn: log('warn'),
  error: log('error'),
}

const [directory, kind] = process.argv.slice(2)
if (directory === undefined) throw new Error('usage: mount-main.ts DIRECTORY [null]')
const client = new MemoryClient({ isNull: kind === 'null' })
const mount = await mountFuse({ client, directory, source: 'cairn://memory', logger })
/** Short: tests that stop a busy mount wait for it. */
const UNMOUNT_DEADLINE_MS = 500
process.on('SIGTERM', () => void mount.unmount(UNMOUNT_DEADLINE_MS))
process.on('SIGINT', () => void mount.unmount(UNMOUNT_DEADLINE_MS))
process.stdout.write('mounted\n')
await mount.closed
process.exit(0)
