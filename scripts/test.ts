// The second half of `npm test` (scripts/bootstrap.sh is the first): runs every *.test.ts of core, plugins
// and test, each file in a process of its own. Files under test/integration start whole clusters: each gets a network
// namespace of its own, so that its ports are nobody else's. Most of their time they wait: two of them share a
// processor, and unit tests, which compute, run beside them. A file that measures time or memory says so in its header
// with a line "Runs alone: WHY"; those come last, one at a time. docs/testing.md.
//   node scripts/test.ts [--verbose] [--mds N] [PART-OF-A-PATH...]
//     PART-OF-A-PATH   only the files whose path contains one of these
//     --verbose        the output of files that passed, too
//     --mds N          integration tests that work with any number of metadata servers run on N
//
// Promises: a file that hangs is killed, with everything it started, after its time-out; a file that leaves
// processes or mounts behind, runs no test, or skips one, has failed; the whole run ends within runLimitMs;
// the last lines are node:test's closing lines and `N passed, N failed`; the exit status is non-zero on any
// failure and when no test ran. It retries nothing.

import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { performance } from 'node:perf_hooks'
import { parseArgs } from 'node:util'
import { collectMounts, collectProcesses, killProcesses, type Leftover, markerVariable } from './leftovers.ts'

interface FileResult {
  path: string
  passed: number
  failed: number
  durationMs: number
  /** Why the file failed beyond its own failing tests; empty when it did not. */
  complaints: string[]
  output: string
}

const rootDirectory = resolve(import.meta.dirname, '..')
const compileCache = join(rootDirectory, 'node_modules/.cache/cairn')
const unitTimeoutMs = 120_000
/** They compute for minutes, beside others. */
const simulationTimeoutMs = 400_000
const integrationTimeoutMs = 480_000
// `npm test` aims at 15 minutes on two idle processors; a busy machine gets slack. What has not run by then
// is reported as failed.
const runLimitMs = 25 * 60_000
const outputSizeMax = 4 * 1024 * 1024
const pipeGraceMs = 1000
// The tests of a file time out this much before the file does, so that the output names the one that hung.
const testTimeoutLeadMs = 2000
const slowestCount = 8
const integrationPrefix = 'test/integration/'
const simulationPrefix = 'test/simulation/'
// Their clusters are in memory together, 1 GB each.
const integrationsAtOnceMax = 8
// Started first, so that nothing is left with one of them at the end. Others follow in the order of their names.
const longestFirst = [
  simulationPrefix,
  ...['lost-processes', 'real-programs', 'damaged-disks', 'commands', 'no-quorum', 'restored-metadata'],
  ...['absent-chunk-server', 'by-hand', 'power-cuts', 'two-versions'],
].map((name) => (name.includes('/') ? name : `${integrationPrefix}${name}.test.ts`))
const runsAlonePattern = /^(?: \*|\/\/) Runs alone: \S/m
const startedMs = performance.now()

/** Starts a command with a loopback of its own and nothing else; the process stays the one that was started. */
const ownNetwork = ['unshare', '--net', 'sh', '-c', 'ip link set lo up && exec "$@"', 'sh']

function isIntegration(path: string): boolean {
  return path.startsWith(integrationPrefix)
}

function timeoutMsOf(path: string): number {
  if (isIntegration(path)) return integrationTimeoutMs
  return path.startsWith(simulationPrefix) ? simulationTimeoutMs : unitTimeoutMs
}

function runsAlone(path: string): boolean {
  return runsAlonePattern.test(readFileSync(join(rootDirectory, path), 'utf8'))
}

/** Where in the row a file stands. */
function turn(path: string): number {
  const place = longestFirst.findIndex((begin) => path.startsWith(begin))
  return place < 0 ? longestFirst.length : place
}

function listTestFiles(filters: string[]): string[] {
  return globSync(['core/**/*.test.ts', 'plugins/**/*.test.ts', 'test/**/*.test.ts'], {
    cwd: rootDirectory,
    exclude: (name) => name.includes('node_modules'),
  })
    .filter((path) => filters.length === 0 || filters.some((filter) => path.includes(filter)))
    .sort()
}

/** In the order in which they start. */
interface Plan {
  readonly units: string[]
  readonly integrations: string[]
  readonly alone: string[]
}

function makePlan(paths: string[]): Plan {
  const ordered = paths.toSorted((a, b) => turn(a) - turn(b))
  const integrations = ordered.filter(isIntegration)
  return {
    units: ordered.filter((path) => !isIntegration(path)),
    integrations: integrations.filter((path) => !runsAlone(path)),
    alone: integrations.filter(runsAlone),
  }
}

/** Reads the last closing line of that name which node:test's reporter printed, e.g. `ℹ pass 12`. */
function closingCount(output: string, name: string): number {
  const found = [...output.matchAll(new RegExp(`^[#ℹ] ${name} (\\d+)$`, 'gm'))].at(-1)
  return found === undefined ? 0 : Number(found[1])
}

function judge(path: string, output: string, exitCode: number | null, complaints: string[]): FileResult {
  const testCount = closingCount(output, 'tests')
  const skipped = closingCount(output, 'skipped') + closingCount(output, 'todo')
  let failed = closingCount(output, 'fail') + closingCount(output, 'cancelled')
  if (testCount === 0) complaints.push('ran no test')
  if (skipped > 0) complaints.push(`skipped ${skipped} tests: a missing tool is a failure, not a skip`)
  if (exitCode !== 0 && failed === 0) complaints.push(`ended with status ${exitCode ?? 'of a signal'}`)
  if (complaints.length > 0 && failed === 0) failed = 1
  return { path, passed: closingCount(output, 'pass'), failed, durationMs: 0, complaints, output }
}

interface FileEnd {
  output: string
  exitCode: number | null
  leftovers: Leftover[]
}

/** Runs one file to its end or its time-out, which goes to `complaints`. */
function spawnFile(path: string, timeoutMs: number, marker: string, temporary: string, complaints: string[]) {
  const environment: NodeJS.ProcessEnv = {
    ...process.env,
    // mkfs, ip and nft live in the latter two, which not every root shell searches.
    PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`,
    [markerVariable]: marker,
    TMPDIR: temporary,
    // Compiled code is kept, as scripts/cairn does: a third of the processor time of a short file.
    NODE_COMPILE_CACHE: process.env['NODE_COMPILE_CACHE'] ?? compileCache,
  }
  // Set by a surrounding test runner, it would turn the output into that runner's protocol.
  delete environment['NODE_TEST_CONTEXT']
  return new Promise<FileEnd>((done) => {
    const testTimeoutMs = Math.max(1000, timeoutMs - testTimeoutLeadMs)
    const parameters = ['--test-reporter=spec', `--test-timeout=${testTimeoutMs}`, path]
    const isolation = isIntegration(path) ? ownNetwork : []
    const [program = process.execPath, ...rest] = [...isolation, process.execPath, ...parameters]
    const child = spawn(program, rest, {
      cwd: rootDirectory,
      env: environment,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let output = ''
    const append = (piece: string) => {
      if (output.length < outputSizeMax) output += piece
    }
    child.stdout.setEncoding('utf8').on('data', append)
    child.stderr.setEncoding('utf8').on('data', append)
    const timer = setTimeout(() => {
      complaints.push(`timed out after ${timeoutMs / 1000} s`)
      killProcesses(marker)
    }, timeoutMs)
    child.on('error', (error) => complaints.push(error.message))
    let collecting: Promise<Leftover[]> = Promise.resolve([])
    child.on('exit', () => {
      clearTimeout(timer)
      // What is left behind holds the pipes open: only when it is gone can they be read to their end.
      collecting = collectProcesses(marker).finally(() => {
        setTimeout(() => [child.stdout, child.stderr].forEach((pipe) => pipe.destroy()), pipeGraceMs).unref()
      })
    })
    child.on('close', (exitCode) => {
      void collecting.then((leftovers) => done({ output, exitCode, leftovers }))
    })
  })
}

async function runFile(path: string, timeoutMs: number): Promise<FileResult> {
  const fileStartedMs = performance.now()
  const marker = randomUUID()
  const complaints: string[] = []
  // What it mounts lies below, so that it can be told from the mounts of everybody else.
  const temporary = mkdtempSync(join(tmpdir(), 'cairn-test-file-'))
  const { output, exitCode, leftovers } = await spawnFile(path, timeoutMs, marker, temporary, complaints)
  if (leftovers.length > 0) {
    const commands = leftovers.map((leftover) => leftover.command).join(', ')
    complaints.push(`left processes running, now killed: ${commands}`)
  }
  const mounts = collectMounts(temporary)
  if (mounts.length > 0) complaints.push(`left mounts, now unmounted: ${mounts.join(', ')}`)
  rmSync(temporary, { recursive: true, force: true })
  return { ...judge(path, output, exitCode, complaints), durationMs: performance.now() - fileStartedMs }
}

function report(result: FileResult): void {
  const seconds = `${(result.durationMs / 1000).toFixed(1).padStart(6)} s`
  if (result.failed === 0) {
    console.log(`ok   ${seconds}  ${result.path} (${result.passed})`)
    if (isVerbose) console.log(result.output.trimEnd().replace(/^/gm, '     | '))
    return
  }
  console.log(
    `FAIL ${seconds}  ${result.path}: ${[`${result.failed} failed`, ...result.complaints].join('; ')}`,
  )
  console.log(result.output.trimEnd().replace(/^/gm, '     | '))
}

/** Runs one file, unless the time for all of them is over. */
async function runInTime(path: string): Promise<FileResult> {
  const remainingMs = runLimitMs - (performance.now() - startedMs)
  const complaint = `not run: the limit of ${runLimitMs / 60_000} minutes for all tests was reached`
  const timeoutMs = timeoutMsOf(path)
  const result =
    remainingMs > 0
      ? await runFile(path, Math.min(timeoutMs, Math.max(remainingMs, 1000)))
      : { path, passed: 0, failed: 1, durationMs: 0, complaints: [complaint], output: '' }
  report(result)
  return result
}

/**
 * Unit and integration tests side by side, as many as the processors take: a unit test counts as one processor, an
 * integration test as half of one. Half of the processors are for unit tests as long as there are any, so that
 * something computes while the others wait.
 */
function runSideBySide({ units, integrations }: Plan): Promise<FileResult[]> {
  const halvesMax = 2 * Math.max(2, availableParallelism())
  const waiting = { units: [...units], integrations: [...integrations] }
  const running = { units: 0, integrations: 0 }
  const results: FileResult[] = []
  const nextKind = (): 'units' | 'integrations' | null => {
    const halves = halvesMax - 2 * running.units - running.integrations
    const mayUnit = running.units < Math.floor(halvesMax / 4) || waiting.integrations.length === 0
    if (waiting.units.length > 0 && mayUnit && halves >= 2) return 'units'
    const mayIntegration = halves >= 1 && running.integrations < integrationsAtOnceMax
    return waiting.integrations.length > 0 && mayIntegration ? 'integrations' : null
  }
  return new Promise((resolveAll, rejectAll) => {
    const startSome = (): void => {
      for (let kind = nextKind(); kind !== null; kind = nextKind()) start(kind)
      if (running.units + running.integrations === 0) resolveAll(results)
    }
    const start = (kind: 'units' | 'integrations'): void => {
      running[kind]++
      runInTime(waiting[kind].shift() ?? '')
        .then((result) => {
          results.push(result)
          running[kind]--
          startSome()
        })
        .catch(rejectAll)
    }
    startSome()
  })
}

async function runOneByOne(paths: readonly string[]): Promise<FileResult[]> {
  const results: FileResult[] = []
  for (const path of paths) results.push(await runInTime(path))
  return results
}

function summarize(results: FileResult[]): void {
  const passed = results.reduce((sum, result) => sum + result.passed, 0)
  const failed = results.reduce((sum, result) => sum + result.failed, 0)
  const slowest = results.toSorted((a, b) => b.durationMs - a.durationMs).slice(0, slowestCount)
  console.log('\nslowest files:')
  for (const result of slowest) {
    console.log(`${(result.durationMs / 1000).toFixed(1).padStart(8)} s  ${result.path}`)
  }
  for (const result of results.filter((one) => one.failed > 0)) console.log(`failed: ${result.path}`)
  // The closing lines of node:test's own reporter, summed over the files.
  console.log(`\n# tests ${passed + failed}\n# pass ${passed}\n# fail ${failed}`)
  console.log(`# duration_ms ${Math.round(performance.now() - startedMs)}`)
  console.log(`${passed} passed, ${failed} failed`)
  process.exitCode = failed === 0 && passed > 0 ? 0 : 1
}

const { values, positionals } = parseArgs({
  options: { verbose: { type: 'boolean' }, mds: { type: 'string' } },
  allowPositionals: true,
})
if (values.mds !== undefined) process.env['CAIRN_TEST_MDS'] = values.mds
const isVerbose = values.verbose === true
const plan = makePlan(listTestFiles(positionals))
const results = [...(await runSideBySide(plan)), ...(await runOneByOne(plan.alone))]
summarize(results)
