/**
 * `npm run campaign`: faults on a quorum of real processes; `--help` says how (below). Runs itself again inside
 * new namespaces of network, mounts and processes: whatever happens, nothing of it is left behind.
 */
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { type CampaignResult, runCampaign } from './campaign.ts'
import { figuresOf, table } from './figures.ts'

const USAGE = `npm run campaign -- OPTIONS        as root, with xfsprogs, iproute2 and nftables

  --mds 3          metadata servers
  --each 25        faults of each kind that strike the master; some more strike followers
  --seed 1         decides what happens when; the processes themselves run as they run
  --short          servers are away for 2 to 3 seconds, not 2 to 6
  --json           figures as JSON on standard output; progress goes to standard error

With CAIRN_KEEP=1 in the environment logs and disks are kept.
`
/** Names of network namespaces are files here; the campaign mounts its own on top. */
const NAMES_DIRECTORY = '/run/netns'
const AWAY_MS_MAX = 6_000
const SHORT_AWAY_MS_MAX = 3_000

function fail(problem: string): never {
  process.stderr.write(`campaign: ${problem}\n\n${USAGE}`)
  process.exit(2)
}

function options() {
  try {
    return parseArgs({
      options: {
        mds: { type: 'string', default: '3' },
        each: { type: 'string', default: '25' },
        seed: { type: 'string', default: '1' },
        short: { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
        /** Internal: the run itself, everything in this directory. */
        inside: { type: 'string' },
      },
    }).values
  } catch (error) {
    return fail((error as Error).message)
  }
}

const values = options()
if (values.help) {
  process.stdout.write(USAGE)
  process.exit(0)
}

function count(name: 'mds' | 'each' | 'seed'): number {
  const value = Number(values[name])
  return Number.isSafeInteger(value) && value > 0 ? value : fail(`--${name} ${values[name]} is no number`)
}

/** New namespaces end with their first process; that one ends with us. */
async function outside(): Promise<number> {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cairn-campaign-'))
  fs.mkdirSync(NAMES_DIRECTORY, { recursive: true })
  const namespaces = ['--net', '--mount', '--pid', '--fork', '--mount-proc', '--kill-child']
  const again = [process.execPath, import.meta.filename, ...process.argv.slice(2), '--inside', directory]
  const child = spawn('unshare', [...namespaces, ...again], {
    stdio: ['pipe', 'inherit', 'inherit'],
    env: { ...process.env, TMPDIR: directory },
  })
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.stdin?.end())
  const status = await new Promise<number>((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (code) => resolve(code ?? 1))
  })
  if (process.env['CAIRN_KEEP'] !== undefined) process.stderr.write(`kept: ${directory}\n`)
  else fs.rmSync(directory, { recursive: true, force: true })
  return status
}

async function inside(directory: string): Promise<number> {
  process.stdin.once('end', () => process.exit(130)).resume()
  const note = (line: string): void => void process.stderr.write(`${line}\n`)
  const [metadataServers, each, seed] = [count('mds'), count('each'), count('seed')]
  const awayMsMax = values.short ? SHORT_AWAY_MS_MAX : AWAY_MS_MAX
  const result = await runCampaign({ metadataServers, each, seed, awayMsMax, directory, progress: note })
  report(result)
  return result.problems.length === 0 ? 0 : 1
}

function report({ struck, counts, problems }: CampaignResult): void {
  const figures = figuresOf(struck)
  if (values.json) process.stdout.write(`${JSON.stringify({ ...figures, counts, problems })}\n`)
  else {
    const facts = Object.entries(counts).map(([name, value]) => `${name} ${value}`)
    process.stdout.write(`\n${table(figures)}\n${facts.join(', ')}\n`)
    process.stdout.write(
      problems.length === 0 ? 'no promise was broken\n' : `BROKEN:\n${problems.join('\n')}\n`,
    )
  }
}

try {
  process.exit(values.inside === undefined ? await outside() : await inside(values.inside))
} catch (error) {
  process.stderr.write(`campaign: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exit(1)
}
