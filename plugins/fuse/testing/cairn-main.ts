/**
 * The commands of this plugin as a program of their own, over the in-memory client: what the real
 * composition root does, in the smallest form. `cairn-main.ts mount|umount [OPTIONS] DIRECTORY`.
 */
import { parseArgs } from 'node:util'
import { CairnError, type Logger } from '@cairn/core/plugin'
import { type ClientEnvironment, mountCommand, unmountCommand } from '../commands.ts'
import { MemoryClient } from './memory-client.ts'

const log = (level: string) => (message: string) => void process.stderr.write(`${level} ${message}\n`)
const logger: Logger = {
  debug: () => {},
  info: log('info'),
  warn: log('warn'),
  error: log('error'),
  child: () => logger,
}

const environment: ClientEnvironment = {
  cluster: (given) => given ?? 'memory',
  connect({ cluster }) {
    if (cluster === 'memory') return Promise.resolve(new MemoryClient())
    return Promise.reject(
      new CairnError('UNREACHABLE', `no metadata server of cluster '${cluster}' is known`, {
        next: 'name one',
      }),
    )
  },
  command: (parameters) => [process.execPath, import.meta.filename, ...parameters],
  logger: () => logger,
}

/** -c may stand before the command, as with the real program. */
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    cluster: { type: 'string', short: 'c' },
    options: { type: 'string', short: 'o' },
    foreground: { type: 'boolean' },
    force: { type: 'boolean', short: 'f' },
    log: { type: 'string' },
    'hold-on-nospace': { type: 'boolean' },
    'fail-on-nospace': { type: 'boolean' },
  },
})
const [name, directory] = positionals
const command = name === 'mount' ? mountCommand(() => environment) : unmountCommand
try {
  const status = await command.run?.({
    arguments: [directory],
    options: {
      ...values,
      holdOnNospace: values['hold-on-nospace'],
      failOnNospace: values['fail-on-nospace'],
    },
    output: {
      json: false,
      line: (text) => void process.stdout.write(`${text}\n`),
      document: (_value, lines) => void process.stdout.write(`${lines.join('\n')}\n`),
      warn: (text) => void process.stderr.write(`${text}\n`),
    },
    signal: new AbortController().signal,
  })
  process.exit(status ?? 0)
} catch (error) {
  const next = error instanceof CairnError ? `${error.code}: ${error.next}` : ''
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n${next}\n`)
  process.exit(1)
}
