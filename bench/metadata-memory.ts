/**
 * `npm run bench:memory`: what a metadata server needs in memory for a large state, how long it takes to start
 * from it, and how long its event loop stalls meanwhile. Two states: 50,000 files of 100 chunks, and a million
 * files of one chunk, three replicas each. The server is a real process on a real repository; memory is the
 * difference of its resident size with this state and with none. Goals: docs/performance.md.
 */
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { EtcDirectory } from '../core/cli/etc.ts'
import { makeMetadataServer } from '../core/node/commands/make-mds.ts'
import { METADATA_DATABASE } from '../core/node/roles/metadata-server.ts'
import { run, stopDaemon } from './process.ts'
import { StateMaker, type StateSize } from './metadata-state.ts'

const { values } = parseArgs({
  strict: false,
  options: {
    scale: { type: 'string', default: '1' },
    port: { type: 'string', default: '14610' },
    settle: { type: 'string', default: '5' },
  },
})
const MAIN = path.join(import.meta.dirname, '..', 'core', 'node', 'main.ts')
const WATCH = path.join(import.meta.dirname, 'event-loop-watch.ts')
const START_DEADLINE_MS = 300_000
const CLOCK_TICK_MS = 10
const KIB = 1024

interface Measured {
  readonly startMs: number
  /** Processor time of all threads until then. */
  readonly startBusyMs: number
  readonly residentBytes: number
  readonly peakBytes: number
  readonly stallMs: number
  /** Of what the thread had a processor for. */
  readonly busyStallMs: number
}

async function measure(directory: string, label: string): Promise<Measured> {
  const stalls = path.join(directory, `stalls-${label}`)
  fs.writeFileSync(stalls, '')
  const startedMs = performance.now()
  const child = spawn(
    process.execPath,
    [
      ...['--max-semi-space-size=4', '--import', WATCH, MAIN],
      ...['--etc', path.join(directory, 'etc'), '-c', 'bench', 'mds', '-r', path.join(directory, 'mds')],
    ],
    { stdio: ['ignore', 'ignore', 'inherit'], env: { ...process.env, CAIRN_STALLS: stalls } },
  )
  try {
    while (!(await listens(Number(values.port) + 1))) {
      if (performance.now() - startedMs > START_DEADLINE_MS)
        throw new Error('the metadata server did not start')
      await pause(20)
    }
    const startMs = performance.now() - startedMs
    const startBusyMs = processorMs(child.pid ?? 0)
    await pause(Number(values.settle) * 1000)
    const status = fs.readFileSync(`/proc/${child.pid}/status`, 'utf8')
    const field = (name: string): number =>
      Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) * KIB
    const noted = fs
      .readFileSync(stalls, 'utf8')
      .split('\n')
      .map((line) => line.split(' ').map(Number))
      // The first is of loading the program.
      .slice(1)
    const [stallMs, busyStallMs] = [1, 2].map((at) => Math.max(0, ...noted.map((stall) => stall[at] ?? 0)))
    const residentBytes = field('VmRSS')
    return {
      ...{ startMs, startBusyMs, residentBytes, peakBytes: field('VmHWM') },
      stallMs,
      busyStallMs,
    } as Measured
  } finally {
    await stopDaemon(child)
  }
}

/** User and system time of a process. */
function processorMs(pid: number): number {
  const fields = fs.readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) * CLOCK_TICK_MS
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

async function measureState(label: string, size: StateSize, per: string, count: number): Promise<void> {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cairn-memory-'))
  try {
    fs.mkdirSync(path.join(directory, 'etc'))
    await makeMetadataServer({
      ...{ cluster: 'bench', replicas: '3', failureDomain: 'host', password: 'a password of the bench' },
      address: { host: '127.0.0.1', port: Number(values.port) },
      repository: path.join(directory, 'mds'),
      etc: new EtcDirectory(path.join(directory, 'etc')),
    })
    const empty = await measure(directory, 'empty')
    // In a process of its own: making a state takes more memory than having it.
    const database = path.join(directory, 'mds', METADATA_DATABASE)
    const parameters = [import.meta.filename, 'make', database, JSON.stringify(size)]
    await run(process.execPath, parameters)
    const full = await measure(directory, 'full')
    const difference = full.residentBytes - empty.residentBytes
    const mib = (bytes: number): string => `${(bytes / KIB / KIB).toFixed(0)} MiB`
    process.stdout.write(
      `${label}: ${(difference / count).toFixed(0)} bytes per ${per} ` +
        `(${mib(full.residentBytes)} resident, at most ${mib(full.peakBytes)}, empty ${mib(empty.residentBytes)}); ` +
        `start ${(full.startMs / 1000).toFixed(1)} s, of which processor time ${(full.startBusyMs / 1000).toFixed(1)} s ` +
        `(empty ${(empty.startMs / 1000).toFixed(1)} s and ${(empty.startBusyMs / 1000).toFixed(1)} s), ` +
        `longest stall ${full.busyStallMs} ms busy, ${full.stallMs} ms in all, database ${mib(fs.statSync(database).size)}\n`,
    )
  } finally {
    fs.rmSync(directory, { recursive: true, force: true })
  }
}

const [command, database, size] = process.argv.slice(2)
if (command === 'make') await StateMaker.make(database ?? '', JSON.parse(size ?? '') as StateSize)
else {
  const scale = Number(values.scale)
  const large = { files: Math.round(50_000 * scale), chunksPerFile: 100 }
  await measureState('files of 100 chunks', large, 'chunk', large.files * large.chunksPerFile)
  const small = { files: Math.round(1_000_000 * scale), chunksPerFile: 1 }
  await measureState('files of one chunk', small, 'file, name and chunk', small.files)
}
