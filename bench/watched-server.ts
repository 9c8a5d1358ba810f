/** A metadata server in a process of its own, with what it needs and how its event loop stalls. */
import { type ChildProcess, spawn } from 'node:child_process'
import fs from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { stopDaemon } from './process.ts'

const MAIN = path.join(import.meta.dirname, '..', 'core', 'node', 'main.ts')
const WATCH = path.join(import.meta.dirname, 'event-loop-watch.ts')
const START_DEADLINE_MS = 600_000
const CLOCK_TICK_MS = 10
const KIB = 1024

export const CLUSTER = 'bench'

export interface Stall {
  /** From one turn of the timers to the next. */
  readonly stallMs: number
  /** Of what the thread had a processor for: on a busy machine only this says something of the server. */
  readonly busyMs: number
}

export class WatchedServer {
  readonly #child: ChildProcess
  readonly #stallFile: string
  readonly #startedMs = performance.now()
  #reported = 0

  private constructor(child: ChildProcess, stallFile: string) {
    this.#child = child
    this.#stallFile = stallFile
  }

  /** `repository` lies below `directory`, beside `etc`. Its log goes to a file beside it. */
  static spawn(directory: string, repository: string): WatchedServer {
    const stallFile = path.join(directory, `${repository}.stalls`)
    fs.writeFileSync(stallFile, '')
    const log = fs.openSync(path.join(directory, `${repository}.log`), 'w')
    const child = spawn(
      process.execPath,
      [
        ...['--max-semi-space-size=4', '--import', WATCH, MAIN, '--etc', path.join(directory, 'etc')],
        ...['-c', CLUSTER, 'mds', '-r', path.join(directory, repository)],
      ],
      { stdio: ['ignore', log, log], env: { ...process.env, CAIRN_STALLS: stallFile } },
    )
    fs.closeSync(log)
    return new WatchedServer(child, stallFile)
  }

  get ageMs(): number {
    return performance.now() - this.#startedMs
  }

  async untilListening(basePort: number): Promise<void> {
    while (!(await listens(basePort + 1))) {
      if (this.#child.exitCode !== null || this.ageMs > START_DEADLINE_MS)
        throw new Error(
          `the metadata server did not start, see ${this.#stallFile.replace('.stalls', '.log')}`,
        )
      await pause(20)
    }
  }

  /** User and system time of all threads. */
  get processorMs(): number {
    const fields = fs.readFileSync(`/proc/${this.#child.pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
    return (Number(fields[11]) + Number(fields[12])) * CLOCK_TICK_MS
  }

  /** Of /proc/PID/status, as VmRSS. */
  memoryBytes(field: string): number {
    const status = fs.readFileSync(`/proc/${this.#child.pid}/status`, 'utf8')
    return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) * KIB
  }

  /** The longest since this was asked last. That of loading the program does not count. */
  longestStall(): Stall {
    const lines = fs.readFileSync(this.#stallFile, 'utf8').split('\n').slice(0, -1)
    const noted = lines.slice(Math.max(1, this.#reported)).map((line) => line.split(' ').map(Number))
    this.#reported = lines.length
    const [stallMs, busyMs] = [1, 2].map((at) => Math.max(0, ...noted.map((stall) => stall[at] ?? 0)))
    return { stallMs: stallMs ?? 0, busyMs: busyMs ?? 0 }
  }

  async stop(): Promise<void> {
    await stopDaemon(this.#child)
  }
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1')
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}
