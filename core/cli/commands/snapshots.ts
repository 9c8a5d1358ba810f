/**
 * `cairn snapshot create|list|info|delete|clone|rollback PATH …`: snapshots of files (docs/formats/snapshots.md).
 * PATH is on a mount, or with -p inside the cluster; of a file that is gone a snapshot is named by --id.
 */
import path from 'node:path'
import type { Command } from 'commander'
import { CairnError, codeOf } from '../../base/errors.ts'
import { CHUNK_SIZE_BYTES } from '../../base/units.ts'
import type { Snapshot, Snapshots } from '../../client/api.ts'
import { ClientSnapshots } from '../../client/snapshots.ts'
import { nodeClock } from '../../platform/node/platform.ts'
import type { AdminConnection } from '../admin.ts'
import type { CommandContext } from '../context.ts'
import { formatDuration, formatSize, formatTable } from '../output.ts'
import { inodeOf, locate, type Located, type PathOptions } from '../paths.ts'

/** A writer has mds.lease.recall_tout to pause, and a long list takes its time. */
const DEADLINE_MS = 120_000
const RETRY_MS = 200

type ContextOf = (cluster?: string) => CommandContext

interface NamedOptions extends PathOptions {
  readonly id?: number
}
interface DestructiveOptions extends NamedOptions {
  readonly y?: boolean
  readonly dryRun?: boolean
}

const PATH_OPTION = ['-p', 'the path is a path inside the cluster'] as const
const PATH_HELP = 'file on a mount, or with -p inside the cluster'

export function registerSnapshotCommands(program: Command, contextOf: ContextOf): void {
  const group = program
    .command('snapshot')
    .description('snapshots and clones of files')
    .addHelpText('after', '\nExample:\n  cairn snapshot create /mnt/demo/vm.img before-update')
  registerCreate(group, contextOf)
  registerList(group, contextOf)
  registerInfo(group, contextOf)
  registerDelete(group, contextOf)
  registerClone(group, contextOf)
  registerRollback(group, contextOf)
}

function registerCreate(group: Command, contextOf: ContextOf): void {
  group
    .command('create')
    .argument('<path>', PATH_HELP)
    .argument('[name]', 'name of the snapshot (default: the time)')
    .option(...PATH_OPTION)
    .description('keep what a file contains now; whoever writes it is paused for a moment')
    .addHelpText('after', '\nExample:\n  cairn snapshot create /mnt/demo/vm.img before-update')
    .action(async (target: string, given: string | undefined, options: PathOptions) => {
      const located = locate(target, options)
      const name = given ?? nameOfNow()
      const context = contextOf(located.cluster)
      await context.withAdmin(async (admin) => {
        const inode = await inodeOf(admin, located)
        const snapshot = await snapshotsOver(admin).create(inode, name, shownPath(target, options))
        context.output.document({ snapshot, name, source: inode })
        context.output.line(`snapshot ${name} of ${target} made (id ${snapshot})`)
      })
    })
}

function registerList(group: Command, contextOf: ContextOf): void {
  group
    .command('list')
    .argument('[path]', `${PATH_HELP} (default: all snapshots of the cluster)`)
    .option(...PATH_OPTION)
    .description('the snapshots of a file, or of all')
    .addHelpText('after', '\nExample:\n  cairn snapshot list /mnt/demo/vm.img\n  cairn -c demo snapshot list')
    .action(async (target: string | undefined, options: PathOptions) => {
      const located = target === undefined ? undefined : locate(target, options)
      const context = contextOf(located?.cluster)
      await context.withAdmin(async (admin) => {
        const source = located === undefined ? 0 : await inodeOf(admin, located)
        const snapshots = await snapshotsOver(admin).list(source)
        context.output.document({ snapshots: snapshots.map(documentOf) })
        if (snapshots.length === 0) return context.output.line('no snapshots')
        const rows = snapshots.map((snapshot) => [
          ...[String(snapshot.snapshot), snapshot.name, formatSize(snapshot.size), ageOf(snapshot)],
          stateOf(snapshot),
          snapshot.path,
        ])
        const head = ['ID', 'NAME', 'SIZE', 'AGE', 'STATE', 'FILE']
        for (const line of formatTable(head, rows)) context.output.line(line)
      })
    })
}

function registerInfo(group: Command, contextOf: ContextOf): void {
  withName(group.command('info'))
    .description('size and age of a snapshot, and how much of it nobody else holds')
    .addHelpText('after', '\nExample:\n  cairn snapshot info /mnt/demo/vm.img before-update')
    .action(async (target: string | undefined, name: string | undefined, options: NamedOptions) => {
      await onSnapshot(contextOf, target, name, options, async (context, snapshots, { snapshot }) => {
        const info = await snapshots.info(snapshot)
        const { ownChunks, sharedChunks } = info
        const ownBytesMax = Math.min(info.size, ownChunks * CHUNK_SIZE_BYTES)
        context.output.document({ ...documentOf(info), ownBytesMax })
        const lines = [
          ['id', String(snapshot)],
          ['name', info.name],
          ['file', `${info.path}${info.sourceExists ? '' : ' (gone)'}`],
          ['size', formatSize(info.size)],
          ['age', ageOf(info)],
          ['shared', `${sharedChunks} of ${ownChunks + sharedChunks} chunks`],
          ['its own', `at most ${formatSize(ownBytesMax)} in ${ownChunks} chunks: freed when it is deleted`],
        ]
        for (const [title = '', text = ''] of lines) context.output.line(`${title.padEnd(8)} ${text}`)
      })
    })
}

function registerDelete(group: Command, contextOf: ContextOf): void {
  destructive(withName(group.command('delete')))
    .description('delete a snapshot; the file and its other snapshots stay as they are')
    .addHelpText('after', '\nExample:\n  cairn snapshot delete -y /mnt/demo/vm.img before-update')
    .action(async (target: string | undefined, name: string | undefined, options: DestructiveOptions) => {
      await onSnapshot(contextOf, target, name, options, async (context, snapshots, found) => {
        const what = `snapshot ${found.name} of ${found.path} (id ${found.snapshot})`
        if (isOnlyShown(context, options, `${what} would be deleted for good`)) return
        await snapshots.delete(found.snapshot)
        context.output.document({ deleted: documentOf(found) })
        context.output.line(`${what} deleted; its space comes back in the background`)
      })
    })
}

function registerClone(group: Command, contextOf: ContextOf): void {
  group
    .command('clone')
    .argument('<path>', PATH_HELP)
    .argument('<target>', 'the new file: on a mount, or with -p inside the cluster')
    .argument('[name]', 'a snapshot of the file (default: the file as it is now)')
    .option(...PATH_OPTION)
    .option(
      '--id <id>',
      'the snapshot with this id, of a file that is gone; then PATH is not looked at',
      Number,
    )
    .description('make a new file with the contents of a snapshot or file, without copying them')
    .addHelpText(
      'after',
      '\nExample:\n  cairn snapshot clone /mnt/demo/vm.img /mnt/demo/test.img before-update',
    )
    .action(async (from: string, target: string, name: string | undefined, options: NamedOptions) => {
      const parentPath = path.dirname(options.p === true ? target : path.resolve(target))
      const directory = locate(parentPath, options)
      const context = contextOf(directory.cluster)
      await context.withAdmin(async (admin) => {
        const parent = await inodeOf(admin, directory)
        const source =
          name === undefined && options.id === undefined
            ? await inodeOf(admin, locate(from, options))
            : (await found(admin, from, name, options)).snapshot
        const owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }
        const inode = await snapshotsOver(admin).clone(source, parent, path.basename(target), owner)
        context.output.document({ inode, path: target, source })
        context.output.line(`${target} made: it shares what neither of the two has changed`)
      })
    })
}

function registerRollback(group: Command, contextOf: ContextOf): void {
  destructive(withName(group.command('rollback')))
    .description('give a file the contents of its snapshot; what was written since is gone')
    .addHelpText('after', '\nExample:\n  cairn snapshot rollback -y /mnt/demo/vm.img before-update')
    .action(async (target: string | undefined, name: string | undefined, options: DestructiveOptions) => {
      await onSnapshot(contextOf, target, name, options, async (context, snapshots, found_) => {
        const what = `${found_.path} of ${ageOf(found_)} ago (snapshot ${found_.name})`
        const loss = 'what was written since is lost, unless another snapshot has it'
        if (isOnlyShown(context, options, `the file would become ${what}; ${loss}`)) return
        await snapshots.rollback(found_.snapshot)
        context.output.document({ rolledBack: documentOf(found_) })
        context.output.line(`the file is ${what} again`)
      })
    })
}

function withName(command: Command): Command {
  return command
    .argument('[path]', PATH_HELP)
    .argument('[name]', 'name of the snapshot')
    .option(...PATH_OPTION)
    .option('--id <id>', 'the snapshot with this id, also of a file that is gone', Number)
}

function destructive(command: Command): Command {
  return command.option('-y', 'do it').option('--dry-run', 'say what would be done')
}

/** True: with --dry-run. Throws REFUSED when nobody said -y. */
function isOnlyShown(context: CommandContext, options: DestructiveOptions, what: string): boolean {
  if (options.dryRun === true) {
    context.output.document({ dryRun: what })
    context.output.line(what)
    return true
  }
  if (options.y === true) return false
  throw new CairnError('REFUSED', what, { next: 'say -y to do it' })
}

async function onSnapshot(
  contextOf: ContextOf,
  target: string | undefined,
  name: string | undefined,
  options: NamedOptions,
  use: (context: CommandContext, snapshots: Snapshots, snapshot: Snapshot) => Promise<void>,
): Promise<void> {
  const located = options.id === undefined ? locate(target ?? '', options) : undefined
  const context = contextOf(located?.cluster)
  await context.withAdmin(async (admin) =>
    use(context, snapshotsOver(admin), await found(admin, target ?? '', name, options, located)),
  )
}

/** Rejects with NOT_FOUND, USAGE. */
async function found(
  admin: AdminConnection,
  target: string,
  name: string | undefined,
  { id, ...options }: NamedOptions,
  located?: Located,
): Promise<Snapshot> {
  if (id !== undefined) {
    if (!Number.isSafeInteger(id) || id <= 0)
      throw new CairnError('USAGE', 'an id is a number', { next: 'see: cairn snapshot list' })
    return await snapshotsOver(admin).info(id)
  }
  if (name === undefined)
    throw new CairnError('USAGE', 'which snapshot?', { next: `see: cairn snapshot list ${target}` })
  const source = await inodeOf(admin, located ?? locate(target, options))
  const all = await snapshotsOver(admin).list(source)
  const snapshot = all.find((candidate) => candidate.name === name)
  if (snapshot !== undefined) return snapshot
  throw new CairnError('NOT_FOUND', `${target} has no snapshot ${name}`, {
    next: `see: cairn snapshot list ${target}`,
  })
}

/** The client's way to do it, over the connection of a command: one call after the other. */
function snapshotsOver(admin: AdminConnection): ClientSnapshots {
  return new ClientSnapshots({
    call: (method, params) => insist(admin, () => admin.metadata.call(method, params)),
    mutate: (method, params) => {
      const withMutation = { ...params, mutation: admin.mutation() } as unknown as Parameters<
        typeof admin.metadata.call<typeof method>
      >[1]
      return insist(admin, () => admin.metadata.call(method, withMutation))
    },
  })
}

/** Again while the answer is TRY_AGAIN: a writer is being paused, or a long list taken over. */
async function insist<Value>(admin: AdminConnection, ask: () => Promise<Value>): Promise<Value> {
  const endMs = nodeClock.nowMs() + DEADLINE_MS
  for (;;) {
    try {
      return await ask()
    } catch (error) {
      if (codeOf(error) !== 'TRY_AGAIN') throw explained(error)
      if (nodeClock.nowMs() >= endMs)
        throw new CairnError('TIMED_OUT', (error as Error).message, { next: 'try it again', cause: error })
    }
    await admin.pause(RETRY_MS)
    await admin.metadata.call('session.renew', {})
  }
}

function explained(error: unknown): unknown {
  const { message } = error as Error
  switch (codeOf(error)) {
    case 'EEXIST':
      return new CairnError('REFUSED', message, { next: 'choose another name', cause: error })
    case 'QUOTA':
      return new CairnError('REFUSED', message, { next: 'see: cairn snapshot list', cause: error })
    case 'FEATURE_LEVEL':
      return new CairnError('REFUSED', message, { next: 'see: cairn stat', cause: error })
    case 'EBUSY':
      return new CairnError('EBUSY', message, {
        next: 'end what writes the file, or try it again',
        cause: error,
      })
    default:
      return error
  }
}

function shownPath(target: string, options: PathOptions): string {
  return options.p === true ? target : path.resolve(target)
}

function nameOfNow(): string {
  return new Date().toISOString().slice(0, 19).replaceAll(':', '-')
}

function ageOf({ timeMs }: Snapshot): string {
  return formatDuration(Math.max(0, Date.now() - timeMs))
}

function stateOf({ ready, sourceExists }: Snapshot): string {
  return !ready ? 'busy' : sourceExists ? 'ready' : 'file gone'
}

function documentOf(snapshot: Snapshot) {
  const { snapshot: id, timeMs, ...rest } = snapshot
  return { id, ...rest, time: new Date(timeMs).toISOString() }
}
