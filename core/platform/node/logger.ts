/**
 * Logs as JSON lines through pino: to standard error, or to a file that rotates. The files of one
 * service stay under 1.5 GB together (guide, System Requirements): 12 files of 100 MB and the current one.
 */
import { basename, dirname } from 'node:path'
import pino, { type Logger as PinoLogger } from 'pino'
import { createStream } from 'rotating-file-stream'
import type { LogFields, Logger } from '../logger.ts'

const FILE_MEGABYTES_MAX = 100
const FILE_COUNT_MAX = 12

export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent'

export interface NodeLoggerOptions {
  readonly name: string
  readonly level?: LogLevel
  /** Absolute path of the current log file; default: standard error. */
  readonly file?: string
  /** For tests. */
  readonly fileMegabytesMax?: number
  readonly fileCountMax?: number
}

export interface NodeLogger extends Logger {
  /** Writes out what is buffered. */
  close(): Promise<void>
}

class PinoBackedLogger implements Logger {
  readonly #pino: PinoLogger

  constructor(backing: PinoLogger) {
    this.#pino = backing
  }

  debug(message: string, fields?: LogFields): void {
    this.#pino.debug(fields ?? {}, message)
  }
  info(message: string, fields?: LogFields): void {
    this.#pino.info(fields ?? {}, message)
  }
  warn(message: string, fields?: LogFields): void {
    this.#pino.warn(fields ?? {}, message)
  }
  error(message: string, fields?: LogFields): void {
    this.#pino.error(fields ?? {}, message)
  }
  child(name: string): Logger {
    return new PinoBackedLogger(this.#pino.child({ part: name }))
  }
}

export function createNodeLogger(options: NodeLoggerOptions): NodeLogger {
  const settings = {
    name: options.name,
    level: options.level ?? 'info',
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
  }
  if (options.file === undefined) {
    const destination = pino.destination({ fd: 2, sync: true })
    const logger = new PinoBackedLogger(pino(settings, destination))
    return Object.assign(logger, { close: () => Promise.resolve() })
  }
  const stream = createStream(basename(options.file), {
    path: dirname(options.file),
    size: `${options.fileMegabytesMax ?? FILE_MEGABYTES_MAX}M`,
    maxFiles: options.fileCountMax ?? FILE_COUNT_MAX,
  })
  // a full or dead log disk must not take the service down; the next line tries again
  stream.on('error', (error) => process.stderr.write(`log file: ${error.message}\n`))
  const logger = new PinoBackedLogger(pino(settings, stream))
  return Object.assign(logger, {
    close: () => new Promise<void>((resolve) => stream.end(() => resolve())),
  })
}
