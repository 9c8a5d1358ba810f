/**
 * The watcher: a tiny process of its own that outlives a crash of the client and then unmounts, so that
 * a directory is never stuck with "Transport endpoint is not connected". It waits on a pipe that only
 * the client holds open; "done" means the mount ended by itself. It touches only the very mount it was
 * started for (device number and directory both match).
 */
import { type ChildProcess, spawn } from 'node:child_process'
import type { Socket } from 'node:net'
import type { MountEntry } from './system-mount.ts'
import type { MountLogger } from '../protocol/types.ts'

const RESTARTS_MAX = 5

const SCRIPT = `
trap '' INT TERM HUP
read -r answer
[ "$answer" = done ] && exit 0
found=
while read -r _ _ device _ directory _; do
  if [ "$directory" = "$2" ]; then
    found=
    [ "$device" = "$1" ] && found=yes
  fi
done < /proc/self/mountinfo
[ -n "$found" ] && exec umount -i -l "$3"
`

export class Watcher {
  readonly #entry: MountEntry
  readonly #log: MountLogger
  #child: ChildProcess | undefined
  #restarts = 0
  #stopped = false

  constructor(entry: MountEntry, log: MountLogger) {
    this.#entry = entry
    this.#log = log
    this.#start()
  }

  get processId(): number | undefined {
    return this.#child?.pid
  }

  #start(): void {
    const { device, escapedDirectory, directory } = this.#entry
    const child = spawn(
      '/bin/sh',
      ['-c', SCRIPT, 'cairn-mount-watcher', device, escapedDirectory, directory],
      {
        // A session of its own: what ends the client's group or terminal leaves it alone.
        detached: true,
        stdio: ['pipe', 'ignore', 'ignore'],
        cwd: '/',
      },
    )
    this.#child = child
    child.unref()
    const pipe = child.stdin as Socket | null
    pipe?.on('error', () => {}) // it died: 'exit' follows
    pipe?.unref()
    child.on('error', (error) => this.#onGone(error.message))
    child.on('exit', () => this.#onGone('exited'))
  }

  #onGone(reason: string): void {
    if (this.#stopped) return
    this.#restarts++
    if (this.#restarts > RESTARTS_MAX) {
      this.#log.error('the mount watcher cannot be kept alive; a crash would leave a stuck mount', { reason })
      return
    }
    this.#log.warn('the mount watcher died; starting another', { reason })
    this.#start()
  }

  /** The mount has ended: nothing is left to watch. */
  stop(): void {
    this.#stopped = true
    this.#child?.stdin?.end('done\n')
  }
}
