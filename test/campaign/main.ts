/**
 * `npm run campaign`: faults on a quorum of real processes; `--help` says how (below). Runs itself again inside
 * new namespaces of network, mounts and processes: whatever happens, nothing of it is left behind.
 */
import { workInOwnNamespaces } from '../integration/support/own-namespaces.ts'
import { commandLine } from '../support/command-line.ts'
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
const AWAY_MS_MAX = 6_000
const SHORT_AWAY_MS_MAX = 3_000

const { values, whole } = commandLine('campaign', USAGE, {
  mds: { type: 'string', default: '3' },
  each: { type: 'string', default: '25' },
  seed: { type: 'string', default: '1' },
  short: { type: 'boolean', default: false },
  json: { type: 'boolean', default: false },
  /** Internal: the run itself, everything in this directory. */
  inside: { type: 'string' },
})

async function inside(directory: string): Promise<number> {
  const note = (line: string): void => void process.stderr.write(`${line}\n`)
  const metadataServers = whole(values.mds, 'mds', 1)
  const each = whole(values.each, 'each', 1)
  const seed = whole(values.seed, 'seed', 1)
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

await workInOwnNamespaces('campaign', import.meta.filename, values.inside, inside)
