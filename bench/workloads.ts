/**
 * The workloads of the goals, on any mounted directory: one 1 GiB file through fio (libaio, direct I/O) and
 * many small files through system calls.
 *
 *   W0 sequential fill + fsync · W1 random write 4 KiB depth 32 · W2 random read 4 KiB depth 32
 *   W3 random write 4 KiB depth 1, fsync each · W4 sequential write 1 MiB depth 8
 *   W5 sequential read 1 MiB depth 8, cold and hot · W6 70/30 4 KiB depth 16
 *   W7 files of 4 KiB: create, stat, list, delete
 *   W8 create without data, stat, rename, delete, by 1, 16 and 64 callers at once
 */
import fs from 'node:fs'
import path from 'node:path'
import { metadataOperations } from './metadata-load.ts'
import { run } from './process.ts'

export const WORKLOADS = ['W0', 'W1', 'W2', 'W3', 'W4', 'W5', 'W6', 'W7', 'W8'] as const
export type Workload = (typeof WORKLOADS)[number]

export interface WorkloadOptions {
  readonly sizeMib: number
  readonly runtimeS: number
  readonly rampS: number
  readonly fileCount: number
  /** Callers at once, in turn. */
  readonly concurrencies: readonly number[]
  /** Of the system under test so far; see `Peer`. */
  readonly processorMs: (() => number) | null
}

/** One figure: higher is better. */
export interface Figure {
  /** 'W1', 'W5cold', 'W7create', … */
  readonly name: string
  readonly unit: 'MB/s' | 'IOPS' | '/s'
  readonly value: number
  /** Disk flushes per fsync, where the workload makes fsyncs. */
  readonly flushesPerFsync?: number
  /** Processor time of the system under test in µs for one operation, or for 1 MiB where the unit is MB/s. */
  readonly processorUs?: number
}

interface FioJob {
  readonly jobs: readonly [
    {
      readonly error: number
      readonly read: FioSide
      readonly write: FioSide
      readonly sync?: { readonly total_ios?: number }
    },
  ]
}
interface FioSide {
  readonly iops: number
  readonly bw_bytes: number
  readonly total_ios: number
}

const RANDOM_WRITE_4K = ['--rw=randwrite', '--bs=4k']

/** Fills the file first when a workload needs it. */
export async function runWorkload(
  directory: string,
  workload: Workload,
  options: WorkloadOptions,
): Promise<Figure[]> {
  const file = path.join(directory, 'fio.dat')
  const timed = ['--time_based', `--runtime=${options.runtimeS}`, `--ramp_time=${options.rampS}`]
  const needsFile = workload !== 'W0' && workload !== 'W7' && workload !== 'W8'
  if (needsFile && !fs.existsSync(file)) await fill(file, options)
  switch (workload) {
    case 'W0':
      fs.rmSync(file, { force: true })
      return [{ name: 'W0', unit: 'MB/s', value: await fill(file, options) }]
    case 'W1':
      return [await fio('W1', 'IOPS', file, options, [...RANDOM_WRITE_4K, '--iodepth=32', ...timed])]
    case 'W2':
      return [await fio('W2', 'IOPS', file, options, ['--rw=randread', '--bs=4k', '--iodepth=32', ...timed])]
    case 'W3':
      return [
        await fio('W3', 'IOPS', file, options, [...RANDOM_WRITE_4K, '--iodepth=1', '--fsync=1', ...timed]),
      ]
    case 'W4':
      return [await fio('W4', 'MB/s', file, options, ['--rw=write', '--bs=1m', '--iodepth=8', ...timed])]
    case 'W5': {
      await run('sync', [])
      fs.writeFileSync('/proc/sys/vm/drop_caches', '3')
      const read = ['--rw=read', '--bs=1m', '--iodepth=8']
      const cold = await fio('W5cold', 'MB/s', file, options, read)
      return [cold, await fio('W5hot', 'MB/s', file, options, [...read, ...timed])]
    }
    case 'W6':
      return [
        await fio('W6', 'IOPS', file, options, [
          '--rw=randrw',
          '--rwmixread=70',
          '--bs=4k',
          '--iodepth=16',
          ...timed,
        ]),
      ]
    case 'W7':
      return smallFiles(directory, options.fileCount)
    case 'W8':
      return metadataOperations(directory, options.concurrencies, options.runtimeS)
  }
}

async function fill(file: string, options: WorkloadOptions): Promise<number> {
  const started = performance.now()
  await fioRaw('W0', file, options, ['--rw=write', '--bs=1m', '--iodepth=8', '--end_fsync=1'])
  return (options.sizeMib * 1.048576) / ((performance.now() - started) / 1000)
}

async function fioRaw(
  name: string,
  file: string,
  options: WorkloadOptions,
  parameters: readonly string[],
): Promise<FioJob['jobs'][0]> {
  const text = await run('fio', [
    // else one that is interrupted leaves a file where it was started
    '--verify_state_save=0',
    `--name=${name}`,
    `--filename=${file}`,
    `--size=${options.sizeMib}m`,
    '--ioengine=libaio',
    '--direct=1',
    '--refill_buffers',
    '--norandommap',
    '--randrepeat=0',
    '--output-format=json',
    ...parameters,
  ])
  const job = (JSON.parse(text.slice(text.indexOf('{'))) as FioJob).jobs[0]
  if (job.error !== 0) throw new Error(`${name}: fio reports error ${job.error}`)
  return job
}

async function fio(
  name: string,
  unit: Figure['unit'],
  file: string,
  options: WorkloadOptions,
  parameters: readonly string[],
): Promise<Figure> {
  const flushesBefore = diskFlushes()
  const processorMsBefore = options.processorMs?.() ?? 0
  const job = await fioRaw(name, file, options, parameters)
  const usedMs = (options.processorMs?.() ?? 0) - processorMsBefore
  // The ramp is not in fio's count but is in what the disk and the processors count: scale it.
  const isTimed = parameters.includes('--time_based')
  const scale = isTimed ? (options.runtimeS + options.rampS) / options.runtimeS : 1
  const operations = (job.read.total_ios + job.write.total_ios) * scale
  const value =
    unit === 'MB/s' ? (job.read.bw_bytes + job.write.bw_bytes) / 1e6 : job.read.iops + job.write.iops
  const base = { name, unit, value }
  const processor =
    options.processorMs === null ? {} : { processorUs: (usedMs * 1000) / Math.max(1, operations) }
  if (!parameters.includes('--fsync=1')) return { ...base, ...processor }
  const syncs = job.write.iops * (options.runtimeS + options.rampS)
  return { ...base, ...processor, flushesPerFsync: (diskFlushes() - flushesBefore) / Math.max(1, syncs) }
}

/** Flush requests completed by all disks since boot (field 19 of /proc/diskstats; see the kernel's iostats document). */
function diskFlushes(): number {
  return fs
    .readFileSync('/proc/diskstats', 'utf8')
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => /^(vd[a-z]|sd[a-z]|nvme\d+n\d+)$/.test(fields[2] ?? ''))
    .reduce((sum, fields) => sum + Number(fields[18] ?? 0), 0)
}

function smallFiles(directory: string, fileCount: number): Figure[] {
  const top = path.join(directory, 'meta')
  fs.mkdirSync(top)
  const names = Array.from({ length: fileCount }, (_, index) =>
    path.join(top, `f${String(index).padStart(6, '0')}`),
  )
  const data = Buffer.alloc(4096, 0x5a)
  const create = rate(fileCount, () => {
    for (const name of names) {
      const descriptor = fs.openSync(name, 'wx')
      fs.writeSync(descriptor, data)
      fs.closeSync(descriptor)
    }
  })
  const stat = rate(fileCount, () => {
    for (const name of names) fs.statSync(name)
  })
  let listed = 0
  const list = rate(fileCount, () => {
    listed = fs.readdirSync(top).length
  })
  if (listed !== fileCount) throw new Error(`W7: ${listed} of ${fileCount} files are listed`)
  const remove = rate(fileCount, () => {
    for (const name of names) fs.unlinkSync(name)
  })
  fs.rmdirSync(top)
  return [
    { name: 'W7create', unit: '/s', value: create },
    { name: 'W7stat', unit: '/s', value: stat },
    { name: 'W7list', unit: '/s', value: list },
    { name: 'W7delete', unit: '/s', value: remove },
  ]
}

function rate(count: number, work: () => void): number {
  const started = performance.now()
  work()
  return count / ((performance.now() - started) / 1000)
}
