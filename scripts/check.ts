// `npm run check`: types, lint, format, dead code and the tidy tests, all over the whole tree, side by side.
// Prints each one's time and, for those that failed, what they said. Exits non-zero when any failed.
// It changes nothing: `npm run format` is what rewrites files. Names given on the command line run only these.

import { spawn } from 'node:child_process'
import { globSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { resolve } from 'node:path'
import { performance } from 'node:perf_hooks'

interface Check {
  name: string
  command: string
  parameters: string[]
}

interface CheckResult {
  check: Check
  exitCode: number
  output: string
  durationMs: number
}

const rootDirectory = resolve(import.meta.dirname, '..')
const binDirectory = resolve(rootDirectory, 'node_modules/.bin')

// Longest first, so that the machine's cores end together.
const checks: Check[] = [
  { name: 'lint', command: 'oxlint', parameters: ['--type-aware', '--deny-warnings', '--format=unix', '.'] },
  {
    name: 'tidy',
    command: process.execPath,
    parameters: [
      '--test',
      '--test-reporter=spec',
      ...globSync('test/tidy/*.test.ts', { cwd: rootDirectory }),
    ],
  },
  { name: 'types', command: 'tsc', parameters: ['--noEmit', '--pretty', 'false'] },
  { name: 'unused', command: 'knip', parameters: ['--no-progress'] },
  { name: 'format', command: 'biome', parameters: ['format', '--colors=off', '--reporter=summary', '.'] },
]

function runCheck(check: Check): Promise<CheckResult> {
  const startedMs = performance.now()
  const environment: NodeJS.ProcessEnv = {
    ...process.env,
    PATH: `${binDirectory}:${process.env['PATH'] ?? ''}`,
  }
  // Set by a surrounding test runner, it would turn the tidy tests' output into that runner's protocol.
  delete environment['NODE_TEST_CONTEXT']
  return new Promise((done) => {
    const child = spawn(check.command, check.parameters, {
      cwd: rootDirectory,
      env: environment,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const pieces: Buffer[] = []
    child.stdout.on('data', (piece: Buffer) => pieces.push(piece))
    child.stderr.on('data', (piece: Buffer) => pieces.push(piece))
    const end = (exitCode: number, output: string) =>
      done({ check, exitCode, output, durationMs: performance.now() - startedMs })
    child.on('error', (error) => end(1, `${error.message}; run: sh scripts/bootstrap.sh start`))
    child.on('close', (code, signal) => {
      end(code ?? 1, Buffer.concat(pieces).toString() + (signal === null ? '' : `killed by ${signal}\n`))
    })
  })
}

function report(result: CheckResult): void {
  const verdict = result.exitCode === 0 ? 'ok' : `FAILED (exit status ${result.exitCode})`
  console.log(
    `${result.check.name.padEnd(8)} ${(result.durationMs / 1000).toFixed(1).padStart(5)} s  ${verdict}`,
  )
  if (result.exitCode !== 0) console.log(result.output.trimEnd())
}

async function runAll(selected: Check[]): Promise<CheckResult[]> {
  const waiting = [...selected]
  const results: CheckResult[] = []
  const worker = async () => {
    for (let check = waiting.shift(); check !== undefined; check = waiting.shift()) {
      const result = await runCheck(check)
      report(result)
      results.push(result)
    }
  }
  await Promise.all(Array.from({ length: Math.max(2, availableParallelism()) }, worker))
  return results
}

const names = process.argv.slice(2)
const selected = names.length === 0 ? checks : checks.filter((check) => names.includes(check.name))
if (selected.length === 0) {
  console.error(`check: no such check; there are: ${checks.map((check) => check.name).join(', ')}`)
  process.exit(2)
}
const startedMs = performance.now()
const results = await runAll(selected)
const failed = results.filter((result) => result.exitCode !== 0).map((result) => result.check.name)
const totalS = ((performance.now() - startedMs) / 1000).toFixed(1)
console.log(
  failed.length === 0
    ? `check: all ${results.length} passed in ${totalS} s`
    : `check: ${failed.join(', ')} failed (${totalS} s)`,
)
process.exitCode = failed.length === 0 ? 0 : 1
