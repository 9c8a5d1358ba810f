/**
 * `npm run bench:memory`: what a metadata server needs in memory for a large state, how long it takes to start
 * from it, and how long its event loop stalls meanwhile. Two states: 50,000 files of 100 chunks, and a million
 * files of one chunk, three replicas each. The server is a real process on a real repository; memory is the
 * difference of its resident size with this state and with none. Then, with a state of both kinds, how long its
 * event loop stalls in all that concerns very many of anything (metadata-stalls.ts). Goals: docs/performance.md.
 */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { databaseOf, fillRepository, makeRepository, REPOSITORY } from './metadata-repository.ts'
import type { StateSize } from './metadata-state.ts'
import { measureStalls } from './metadata-stalls.ts'
import { type Stall, WatchedServer } from './watched-server.ts'

const { values } = parseArgs({
  strict: false,
  options: {
    scale: { type: 'string', default: '1' },
    port: { type: 'string', default: '14610' },
    settle: { type: 'string', default: '5' },
    parts: { type: 'string', default: 'memory,stalls' },
  },
})
const KIB = 1024

interface Measured extends Stall {
  readonly startMs: number
  /** Processor time of all threads until then. */
  readonly startBusyMs: number
  readonly residentBytes: number
  readonly peakBytes: number
}

async function measure(directory: string): Promise<Measured> {
  const server = WatchedServer.spawn(directory, REPOSITORY)
  try {
    await server.untilListening(Number(values.port))
    const startMs = server.ageMs
    const startBusyMs = server.processorMs
    await pause(Number(values.settle) * 1000)
    const residentBytes = server.memoryBytes('VmRSS')
    const memory = { residentBytes, peakBytes: server.memoryBytes('VmHWM') }
    return { startMs, startBusyMs, ...memory, ...server.longestStall() }
  } finally {
    await server.stop()
  }
}

async function measureState(label: string, size: StateSize, per: string, count: number): Promise<void> {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cairn-memory-'))
  try {
    await makeRepository(directory, Number(values.port))
    const empty = await measure(directory)
    await fillRepository(directory, [size])
    const full = await measure(directory)
    const difference = full.residentBytes - empty.residentBytes
    const mib = (bytes: number): string => `${(bytes / KIB / KIB).toFixed(0)} MiB`
    process.stdout.write(
      `${label}: ${(difference / count).toFixed(0)} bytes per ${per} ` +
        `(${mib(full.residentBytes)} resident, at most ${mib(full.peakBytes)}, empty ${mib(empty.residentBytes)}); ` +
        `start ${(full.startMs / 1000).toFixed(1)} s, of which processor time ${(full.startBusyMs / 1000).toFixed(1)} s ` +
        `(empty ${(empty.startMs / 1000).toFixed(1)} s and ${(empty.startBusyMs / 1000).toFixed(1)} s), ` +
        `longest stall ${full.busyMs} ms busy, ${full.stallMs} ms in all, database ${mib(fs.statSync(databaseOf(directory)).size)}\n`,
    )
  } finally {
    fs.rmSync(directory, { recursive: true, force: true })
  }
}

const scale = Number(values.scale)
const parts = String(values.parts).split(',')
if (parts.includes('memory')) {
  const large = { files: Math.round(50_000 * scale), chunksPerFile: 100 }
  await measureState('files of 100 chunks', large, 'chunk', large.files * large.chunksPerFile)
  const small = { files: Math.round(1_000_000 * scale), chunksPerFile: 1 }
  await measureState('files of one chunk', small, 'file, name and chunk', small.files)
}
if (parts.includes('stalls'))
  await measureStalls(scale, Number(values.port), (what, { busyMs, stallMs }) =>
    process.stdout.write(`${what}: longest stall ${busyMs} ms busy, ${stallMs} ms in all\n`),
  )
