/**
 * `cairn hwflush-check -l` and `-s HOST -d DIR -t THREADS`: does a disk keep what it said it had flushed when its power
 * is cut? Guide: Checking Data Flushing.
 */
import os from 'node:os'
import path from 'node:path'
import type { Command } from 'commander'
import { CairnError } from '../../base/errors.ts'
import type { CommandContext } from '../../cli/context.ts'
import { parseAddress } from '../../cli/etc.ts'
import { ExitStatus } from '../../cli/exit.ts'
import type { Output } from '../../cli/output.ts'
import { formatAddress } from '../../platform/network.ts'
import { NodeDisk } from '../../platform/node/disk.ts'
import { nodeClock, nodeNetwork } from '../../platform/node/platform.ts'
import { FlushClient } from '../hwflush/flush-client.ts'
import { FlushServer } from '../hwflush/flush-server.ts'
import { FLUSH_PORT_DEFAULT, THREADS_MAX } from '../hwflush/protocol.ts'

const THREADS_DEFAULT = 4
const PROGRESS_MS = 10_000

interface Options {
  readonly l?: boolean
  readonly a?: string
  readonly s?: string
  readonly d?: string
  readonly t?: string
  readonly new?: boolean
  readonly time?: string
}

const example = `
Example:
  cairn hwflush-check -l                                on a machine that stays on
  cairn hwflush-check -s HOST -d /mnt/test -t 10        on the one with the disk; cut its power, and start it again`

export function registerHardwareFlushCheck(program: Command, contextOf: () => CommandContext): void {
  program
    .command('hwflush-check')
    .description('does a disk keep what it has flushed when its power is cut?')
    .option('-l', 'be the server')
    .option(
      '-a <address>',
      `of the server: listen there (default: port ${FLUSH_PORT_DEFAULT} of all addresses)`,
    )
    .option('-s <host>', 'where the server runs, HOST[:PORT]')
    .option('-d <dir>', 'a directory on the disk to be checked')
    .option('-t <threads>', `each writes a file of its own (default ${THREADS_DEFAULT})`)
    .option('--new', 'another disk than before in the same directory: begin anew')
    .option('--time <seconds>', 'end by itself after so long')
    .addHelpText('after', example)
    .action(async (options: Options) => {
      const { output } = contextOf()
      if (options.l === true) return runServer(output, options)
      return runClient(output, options)
    })
}

async function runServer(output: Output, options: Options): Promise<void> {
  if (options.s !== undefined || options.d !== undefined)
    throw usage('-l is the server, -s and -d are for the client', 'give -l alone')
  const server = new FlushServer(nodeNetwork, {
    onClient: (client, remote) => output.line(`${timeStamp()} ${client} at ${remote}`),
    onStart: (client, thread, counter, known) =>
      output.line(`${timeStamp()} ${client} thread ${thread}: goes on at ${counter}, ${known} was flushed`),
    onCacheError: ({ client, thread, known, counter }) =>
      output.line(
        `${timeStamp()} ${client} thread ${thread}: cache error detected! ${known} was flushed, the disk holds ${counter}`,
      ),
    onGone: (client, reason) => output.line(`${timeStamp()} ${client} is gone: ${reason}`),
  })
  const wanted =
    options.a === undefined
      ? { host: '0.0.0.0', port: FLUSH_PORT_DEFAULT }
      : parseAddress(options.a, FLUSH_PORT_DEFAULT)
  const address = await server.listen(wanted)
  output.line(`Listening on ${formatAddress(address)}`)
  await until(options.time)
  await server.close()
  output.document({ address: formatAddress(address), clients: server.clients, errors: server.errors })
  if (server.errors.length > 0) process.exitCode = ExitStatus.failed
}

async function runClient(output: Output, options: Options): Promise<void> {
  if (options.s === undefined || options.d === undefined)
    throw usage('neither -l nor both of -s and -d are given', 'see: cairn hwflush-check --help')
  const threads = Number(options.t ?? THREADS_DEFAULT)
  if (!Number.isSafeInteger(threads) || threads < 1 || threads > THREADS_MAX)
    throw usage(`-t ${options.t} is no number of threads`, `give a number from 1 to ${THREADS_MAX}`)
  const server = parseAddress(options.s, FLUSH_PORT_DEFAULT)
  const directory = path.resolve(options.d)
  const client = new FlushClient({
    disk: new NodeDisk(directory),
    ...{ network: nodeNetwork, clock: nodeClock, server, threads },
    key: `${os.hostname()}:${directory}`,
    isNew: options.new === true,
    onValidated: (thread, { lastValid, highest }) => {
      const beyond = highest > lastValid ? `, though block ${highest} is there` : ''
      output.line(
        `thread ${thread}: ${lastValid === 0 ? 'begins' : `valid up to block ${lastValid}${beyond}`}`,
      )
    },
  })
  const beganMs = nodeClock.nowMs()
  const tell = (): void => {
    const seconds = Math.max(1, (nodeClock.nowMs() - beganMs) / 1000)
    const rate = Math.round(client.writtenCount / seconds)
    output.line(`${timeStamp()} ${client.writtenCount} blocks flushed, ${rate} a second`)
  }
  const progress = setInterval(tell, PROGRESS_MS)
  void until(options.time).then(() => client.stop())
  try {
    await client.run()
  } catch (error) {
    throw asFailure(error, directory)
  } finally {
    clearInterval(progress)
    output.document({ directory, flushed: client.writtenCount, counters: client.counters })
  }
  tell()
}

/** A disk whose power is cut under a running client says so by an error. */
function asFailure(error: unknown, directory: string): unknown {
  if (!(error instanceof CairnError) || !error.code.startsWith('DISK_')) return error
  return new CairnError('FAILED', `${directory}: ${error.message}`, {
    cause: error,
    next: 'if its power was cut: bring it back and give the same command again, which then checks what it kept',
  })
}

/** A signal, or the time given. */
function until(seconds: string | undefined): Promise<void> {
  const durationMs = Number(seconds ?? 0) * 1000
  if (!(durationMs >= 0)) throw usage(`--time ${seconds} is no number of seconds`, 'give a number')
  return new Promise((resolve) => {
    process.once('SIGINT', resolve)
    process.once('SIGTERM', resolve)
    if (durationMs > 0) nodeClock.setTimer(durationMs, resolve)
  })
}

function usage(message: string, next: string): CairnError {
  return new CairnError('USAGE', message, { next })
}

function timeStamp(): string {
  return new Date().toISOString()
}
