/** `cairn up`, `down`, `status`: the embedded cluster. */
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import type { Command } from 'commander'
import { CairnError } from '../../base/errors.ts'
import type { CommandContext } from '../../cli/context.ts'
import { formatTable, type Output } from '../../cli/output.ts'
import { createNodeLogger } from '../../platform/node/logger.ts'
import { cairnCommand, pause } from '../self.ts'
import { askUpStatus, askUpStop, type UpStatus } from '../up/control.ts'
import { UpLayout } from '../up/layout.ts'
import { type RawUpOptions, resolveUpOptions } from '../up/options.ts'
import { describeUp } from '../up/describe.ts'

const DETACH_POLL_MS = 200

export function registerUpCommands(program: Command, contextOf: () => CommandContext): void {
  program
    .command('up')
    .description(
      'a whole cluster of real processes on this machine, under one directory (name: -c, default demo)',
    )
    .option('--dir <dir>', 'where everything lies', './var')
    .option('--mds <count>', 'metadata servers (default 1)')
    .option('--cs <count>', 'chunk servers (default 3)')
    .option('--hosts <count>', 'pretended hosts over which the chunk servers are spread (default 1)')
    .option('--replicas <N[:M]>', 'normal and minimum number of replicas (default: up to 3)')
    .option('--mount <dir>', 'where to mount (default DIR/mnt)')
    .option('--no-mount', 'do not mount')
    .option('--plugins <list>', 'plugins, separated by commas (default fuse)')
    .option('--port <base>', 'base port of the metadata server (default 2510 when free)')
    .option('--no-restart', 'do not restart what dies')
    .option('--detach', 'return when the cluster is healthy')
    .addHelpText('after', '\nExample:\n  cairn up --cs 4 --replicas 3:2')
    .action(async (given: RawUpOptions & { detach?: boolean }) => {
      const context = contextOf()
      const options = context.clusterGiven === undefined ? given : { ...given, cluster: context.clusterGiven }
      process.exitCode =
        options.detach === true
          ? await detach(context.output, options)
          : await foreground(context.output, options)
    })

  program
    .command('down')
    .description('stop the cluster that `cairn up` started')
    .option('--dir <dir>', 'its directory', './var')
    .addHelpText('after', '\nExample:\n  cairn down --dir ./var')
    .action(async (options: { dir: string }) => {
      const context = contextOf()
      const layout = new UpLayout(options.dir)
      const stopped = await askUpStop(layout.controlSocket)
      if (stopped === null) throw notRunning(layout)
      context.output.document({ stopped: true })
      context.output.line(`Cluster '${stopped.cluster}' has stopped. Its data stays in ${layout.root}.`)
    })

  program
    .command('status')
    .description('the processes of the cluster that `cairn up` started')
    .option('--dir <dir>', 'its directory', './var')
    .addHelpText('after', '\nExample:\n  cairn status --json')
    .action(async (options: { dir: string }) => {
      const context = contextOf()
      const layout = new UpLayout(options.dir)
      const status = await askUpStatus(layout.controlSocket)
      if (status === null) throw notRunning(layout)
      context.output.document(status)
      printStatus(context.output, status)
    })
}

function notRunning(layout: UpLayout): CairnError {
  const made = fs.existsSync(layout.optionsFile)
  return new CairnError(
    'NOT_FOUND',
    made ? `the cluster in ${layout.root} is not running` : `there is no cluster in ${layout.root}`,
    {
      next: `start one with: cairn up --dir ${layout.root}`,
    },
  )
}

function printStatus(output: Output, status: UpStatus): void {
  output.line(
    `Cluster '${status.cluster}': ${status.phase}${status.failure === null ? '' : ` (${status.failure})`}`,
  )
  const rows = status.processes.map((service) => [
    service.id,
    service.state,
    service.pid === null ? '-' : String(service.pid),
    String(service.restarts),
    service.address,
    service.log,
  ])
  for (const line of formatTable(['PROCESS', 'STATE', 'PID', 'RESTARTS', 'ADDRESS', 'LOG'], rows))
    output.line(line)
}

async function foreground(output: Output, raw: RawUpOptions): Promise<number> {
  const { options, layout, notes } = resolveUpOptions(raw)
  const { refuseSecond, Up } = await import('../up/up.ts')
  await refuseSecond(layout)
  const logger = createNodeLogger({ name: 'up', level: 'warn' })
  const up = new Up(options, layout, logger)
  const signalled = new Promise<void>((resolve) => {
    process.on('SIGINT', () => resolve())
    process.on('SIGTERM', () => resolve())
    process.on('SIGHUP', () => resolve())
  })
  output.line(`Starting cluster '${options.cluster}' in ${layout.root} …`)
  for (const note of notes) output.line(`Note: ${note}`)
  const started = up.start()
  try {
    const interrupted = await Promise.race([started.then(() => false), signalled.then(() => true)])
    if (!interrupted) {
      const statistics = await started
      output.document({ ...up.status, statistics })
      for (const line of describeUp(up.status, statistics, layout.root)) output.line(line)
      output.line('\nCtrl-C stops the cluster; its data stays.')
      await Promise.race([signalled, up.stopRequested])
      output.line('\nStopping …')
    }
    return 0
  } finally {
    started.catch(() => undefined)
    await up.stop()
    await logger.close()
  }
}

/** Starts the foreground form as a process of its own, waits until it is healthy, prints the endpoints. */
async function detach(output: Output, raw: RawUpOptions & { detach?: boolean }): Promise<number> {
  const { layout, options, notes } = resolveUpOptions(raw)
  const { refuseSecond } = await import('../up/up.ts')
  await refuseSecond(layout)
  fs.mkdirSync(layout.logDirectory, { recursive: true })
  const log = fs.openSync(layout.logFile('up'), 'a')
  const [program = process.execPath, ...parameters] = cairnCommand(
    process.argv.slice(2).filter((text) => text !== '--detach'),
  )
  const child = spawn(program, parameters, { detached: true, stdio: ['ignore', log, log] })
  fs.closeSync(log)
  let exited: number | null = null
  child.once('exit', (code) => {
    exited = code ?? 1
  })
  for (const note of notes) output.line(`Note: ${note}`)
  for (;;) {
    const status = await askUpStatus(layout.controlSocket)
    if (status?.phase === 'healthy') {
      child.unref()
      output.document(status)
      output.line(`Cluster '${options.cluster}' is healthy (process ${status.pid}).`)
      for (const [name, value] of Object.entries(status.endpoints))
        output.line(`  ${name.padEnd(16)} ${value}`)
      output.line(`Stop it with: cairn down --dir ${layout.root}`)
      return 0
    }
    if (exited !== null) {
      const tail = fs.readFileSync(layout.logFile('up'), 'utf8').trim().split('\n').slice(-3).join('\n')
      process.stderr.write(`${tail}\n`)
      return exited
    }
    await pause(DETACH_POLL_MS)
  }
}
