/**
 * `cairn make-mds`, `make-cs`: repositories of metadata and chunk servers. Option letters are the guide's. The code
 * of the servers is loaded by whoever needs it: other commands start without it.
 */
import path from 'node:path'
import type { Command } from 'commander'
import { CairnError } from '../../base/errors.ts'
import type { CommandContext } from '../../cli/context.ts'
import { parseAddress } from '../../cli/etc.ts'
import { readPassword } from '../../cli/password.ts'
import { warnOfQuorum } from '../../cli/quorum.ts'
import { type Address, formatAddress } from '../../platform/network.ts'

const TIER_MAX = 3

interface MakeMetadataServerOptions {
  readonly I?: boolean
  readonly p?: boolean
  readonly passwordFile?: string
  readonly a?: string
  readonly r: string
  readonly replicas: string
  readonly failureDomain: string
  readonly rebuild?: boolean
  readonly forceNewQuorum?: boolean
  readonly yesLoseData?: string
  readonly f?: boolean
  readonly dryRun?: boolean
}

export function registerMakeCommands(program: Command, contextOf: () => CommandContext): void {
  registerMakeMetadataServer(program, contextOf)
  registerMakeChunkServer(program, contextOf)
}

function registerMakeMetadataServer(program: Command, contextOf: () => CommandContext): void {
  program
    .command('make-mds')
    .description(
      'create a cluster with its first metadata server (-I), a further one of a cluster that runs, or a damaged one again (--rebuild)',
    )
    .option('-I', 'create a new cluster')
    .option('-a <address>', 'address of this server: IP[:PORT]; PORT and PORT + 1 are used')
    .requiredOption(
      '-r <dir>',
      'repository: a directory that does not exist yet, or an empty one; with --rebuild the damaged one',
    )
    .option('--rebuild', 'build a damaged metadata server again from the others, under a new id')
    .option(
      '--force-new-quorum',
      'last resort when a majority is lost for good: this survivor becomes the only metadata server',
    )
    .option(
      '--yes-lose-data <name>',
      'with --force-new-quorum: the name of the cluster, instead of typing it',
    )
    .option('-f', 'with --rebuild: although nothing is wrong with it')
    .option('--dry-run', 'with --rebuild and --force-new-quorum: say what would be done')
    .option('-p', 'set the password of the cluster (typed, or the first line of standard input)')
    .option('--password-file <file>', 'the same, the first line of a file')
    .option('--replicas <N[:M]>', 'replicas of new files, normal and minimum', '1')
    .option('--failure-domain <domain>', 'disk, host, rack, row or room', 'host')
    .addHelpText(
      'after',
      '\nExample:\n  cairn -c demo make-mds -I -a 10.30.100.101 -r /cairn/demo-mds -p\n' +
        '  cairn -c demo make-mds -a 10.30.100.102 -r /cairn/demo-mds -b 10.30.100.101\n' +
        '  cairn -c demo make-mds --rebuild -r /cairn/demo-mds',
    )
    .action(async (options: MakeMetadataServerOptions) => {
      const context = contextOf()
      if (options.rebuild === true || options.forceNewQuorum === true) {
        checkAlone(options)
        if (options.rebuild === true) await rebuild(context, options)
        else await force(context, options)
        return
      }
      if (options.I !== true) {
        await join(context, options)
        return
      }
      const cluster = context.cluster()
      const address = addressOf(options)
      if (options.p !== true && options.passwordFile === undefined) {
        throw new CairnError('USAGE', 'a cluster has a password, with which further hosts authenticate', {
          next: 'add -p, or --password-file FILE',
        })
      }
      const { makeMetadataServer, refuseSecondCluster } = await import('./make-mds.ts')
      await refuseSecondCluster(cluster, context.metadataServers())
      const password = await readPassword({
        file: options.passwordFile,
        prompt: `Password of the new cluster '${cluster}'`,
        isNew: true,
        warn: (text) => context.output.note(`cairn: warning: ${text}`),
      })
      await makeMetadataServer({
        cluster,
        address,
        repository: path.resolve(options.r),
        etc: context.etc,
        replicas: options.replicas,
        failureDomain: options.failureDomain,
        password,
      })
      context.output.document({ cluster, repository: path.resolve(options.r), address: options.a })
      context.output.line(
        `Cluster '${cluster}' is created. Start its metadata server with: cairn -c ${cluster} mds -r ${options.r}`,
      )
    })
}

function registerMakeChunkServer(program: Command, contextOf: () => CommandContext): void {
  program
    .command('make-cs')
    .description('create a chunk server')
    .requiredOption('-r <dir>', 'repository: a directory that does not exist yet, or an empty one')
    .option(
      '-a <address>',
      'address of this server: IP[:PORT] (default: as the metadata servers see this host, a free port)',
    )
    .option('-t <tier>', 'storage tier 0 to 3', '0')
    .option('-S', 'without checksums')
    .addHelpText('after', '\nExample:\n  cairn -c demo make-cs -r /cairn/demo-cs')
    .action(async (options: { r: string; a?: string; t: string; S?: boolean }) => {
      const context = contextOf()
      const tier = /^\d$/.test(options.t) ? Number(options.t) : Number.NaN
      if (!(tier <= TIER_MAX))
        throw new CairnError('USAGE', `-t ${options.t} is no tier`, { next: 'give a number from 0 to 3' })
      const repository = path.resolve(options.r)
      const { makeChunkServer } = await import('./make-cs.ts')
      await makeChunkServer({
        cluster: context.cluster(),
        metadataServers: context.metadataServers(),
        remembered: context.configuredServers(),
        repository,
        etc: context.etc,
        tier,
        checksums: options.S !== true,
        listen: options.a === undefined ? null : parseAddress(options.a, 0),
        warn: (text) => context.output.note(`cairn: warning: ${text}`),
      })
      context.output.document({ repository, tier })
      context.output.line(
        `The chunk server is created. Start it with: cairn -c ${context.cluster()} cs -r ${options.r}`,
      )
    })
}

function addressOf({ a }: MakeMetadataServerOptions): Address {
  if (a !== undefined) return parseAddress(a)
  throw new CairnError('USAGE', 'a metadata server has an address, under which the others find it', {
    next: 'add -a IP[:PORT]',
  })
}

function checkAlone({ I, p, rebuild: isRebuild, forceNewQuorum: isForce }: MakeMetadataServerOptions): void {
  const given = [I, p, isRebuild, isForce].filter((option) => option === true).length
  if (given === 1) return
  throw new CairnError('USAGE', 'only one of -I, --rebuild and --force-new-quorum can be meant', {
    next: 'see: cairn make-mds --help',
  })
}

async function force(context: CommandContext, options: MakeMetadataServerOptions): Promise<void> {
  const { forceNewQuorum } = await import('./force-quorum.ts')
  return forceNewQuorum(context, {
    repository: path.resolve(options.r),
    address: options.a === undefined ? null : parseAddress(options.a),
    confirmed: options.yesLoseData,
    isDryRun: options.dryRun === true,
  })
}

async function rebuild(context: CommandContext, options: MakeMetadataServerOptions): Promise<void> {
  const cluster = context.cluster()
  const repository = path.resolve(options.r)
  const { rebuildMetadataServer } = await import('./rebuild-mds.ts')
  const done = await rebuildMetadataServer(context, {
    repository,
    address: options.a === undefined ? null : parseAddress(options.a),
    isForced: options.f === true,
    isDryRun: options.dryRun === true,
  })
  const { oldMember, member, address, setAside } = done
  const at = formatAddress(address)
  const old = oldMember === 0 ? 'no member of the cluster' : `MDS#${oldMember}`
  context.output.document({ ...done, address: at, dryRun: options.dryRun === true })
  if (options.dryRun === true) {
    context.output.line(`Would remove ${old}, set ${repository} aside, and join under a new id at ${at}`)
    return
  }
  context.output.line(
    `The damaged directory, which was ${old}, is now ${setAside}; remove it when all is well.`,
  )
  context.output.line(`MDS#${member} is created. Start it with: cairn -c ${cluster} mds -r ${options.r}`)
}

async function join(context: CommandContext, options: MakeMetadataServerOptions): Promise<void> {
  const cluster = context.cluster()
  const repository = path.resolve(options.r)
  const { joinMetadataServer } = await import('./join-mds.ts')
  const { member, others } = await joinMetadataServer({
    cluster,
    address: addressOf(options),
    repository,
    etc: context.etc,
    metadataServers: context.metadataServers(),
  })
  context.output.document({ cluster, repository, address: options.a, member })
  context.output.line(`MDS#${member} is created. Start it with: cairn -c ${cluster} mds -r ${options.r}`)
  warnOfQuorum(context.output, [...others, { id: member, status: 'active' }])
}
