/** The verifying writer as a process of its own, which may be held for as long as it likes. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import path from 'node:path'

const PROGRAM = path.join(import.meta.dirname, 'verifying-writer.ts')
const OUTPUT_TAIL = 100

export interface Writer {
  /** Done until now, each with its fsync. */
  readonly rounds: number
  readonly hasEnded: boolean
  /** Lets it verify the whole file and end; rejects unless all was well. */
  stop(): Promise<void>
  kill(): void
}

/** `unsynced`: writes and reads only, which under a lease ask no metadata server. */
export function startWriter(file: string, ...mode: 'unsynced'[]): Writer {
  const child = spawn(process.execPath, [PROGRAM, file, ...mode], { stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = new Promise<number | null>((resolve) => child.once('exit', (status) => resolve(status)))
  let output = ''
  child.stdout.on('data', (data) => {
    output = (output + String(data)).slice(-OUTPUT_TAIL)
  })
  const rounds = (): number => Number([...output.matchAll(/rounds (\d+)\n/g)].at(-1)?.[1] ?? 0)
  return {
    get rounds() {
      return rounds()
    },
    get hasEnded() {
      return child.exitCode !== null || child.signalCode !== null
    },
    async stop() {
      child.stdin.end()
      assert.equal(await ended, 0, `the writer failed after ${rounds()} rounds`)
      assert.ok(rounds() > 0, 'the writer did nothing')
    },
    kill() {
      child.kill('SIGKILL')
    },
  }
}
