/**
 * W8: metadata operations per second at several numbers of callers. The calls are made by a small C program
 * (metadata-load.c), compiled here: real system calls from as many threads, and next to no processor time of
 * its own. It counts operations and time; this file only runs it.
 */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { run } from './process.ts'
import type { Figure } from './workloads.ts'

const SOURCE = path.join(import.meta.dirname, 'metadata-load.c')

let program: Promise<string> | null = null

/** Once a run; the folder is removed when the process ends. */
async function compile(): Promise<string> {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cairn-bench-load-'))
  process.once('exit', () => fs.rmSync(directory, { recursive: true, force: true }))
  const binary = path.join(directory, 'metadata-load')
  await run('cc', ['-O2', '-pthread', '-o', binary, SOURCE])
  return binary
}

/** One run for each number of callers, each in a directory of its own. */
export async function metadataOperations(
  directory: string,
  concurrencies: readonly number[],
  seconds: number,
): Promise<Figure[]> {
  program ??= compile()
  const binary = await program
  const figures: Figure[] = []
  for (const concurrency of concurrencies) {
    const top = path.join(directory, `load-${concurrency}`)
    fs.mkdirSync(top)
    const text = await run(binary, [top, String(concurrency), String(seconds)])
    fs.rmdirSync(top)
    for (const line of text.trim().split('\n')) {
      const [phase, operations, elapsed] = line.split(' ')
      const value = Number(operations) / Number(elapsed)
      if (!Number.isFinite(value)) throw new Error(`W8: metadata-load printed '${line}'`)
      figures.push({ name: `W8${phase}@${concurrency}`, unit: '/s', value })
    }
  }
  return figures
}
