/**
 * One supervised child process: started, restarted with back-off when it dies, stopped with a deadline.
 * The child holds the read end of a pipe on its standard input; when the supervisor dies in whatever way,
 * the pipe closes and the child stops by itself, so that nothing is left behind.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import fs from 'node:fs'
import { ExitStatus } from '../../cli/exit.ts'
import type { Clock, Timer } from '../../platform/clock.ts'
import type { Logger } from '../../platform/logger.ts'

const RESTART_DELAY_MS_MIN = 500
const RESTART_DELAY_MS_MAX = 30_000
/** A process that lived this long starts again without delay. */
const STABLE_AFTER_MS = 60_000
const STOP_DEADLINE_MS = 20_000
/** Last bytes of standard error kept for the message when a start fails. */
const ERROR_TAIL_BYTES = 4096

export interface ServiceDefinition {
  /** Unique: 'mds1', 'cs1026', 'mount'. */
  readonly name: string
  readonly role: 'mds' | 'cs' | 'mount'
  readonly command: readonly string[]
  readonly environment: Readonly<Record<string, string>>
  /** Where the child writes its own log; what it prints before it can log lands here too. */
  readonly logFile: string
  readonly address: string
}

/** `removed`: it said that it is not part of the cluster any more. */
export type ServiceState = 'starting' | 'running' | 'waiting' | 'stopped' | 'removed'

export interface ServiceStatus {
  readonly role: string
  readonly id: string
  readonly pid: number | null
  readonly address: string
  readonly log: string
  readonly state: ServiceState
  readonly restarts: number
}

export interface ServiceProcessOptions {
  readonly clock: Clock
  readonly logger: Logger
  readonly restart: boolean
  /** Somebody else asked the process to end: `cairn umount`, `cairn shutdown`, kill -TERM. */
  readonly onOrderlyEnd?: () => void
}

export class ServiceProcess {
  readonly definition: ServiceDefinition
  readonly #options: ServiceProcessOptions
  #child: ChildProcess | null = null
  #state: ServiceState = 'stopped'
  #stopping = false
  #restartCount = 0
  #delayMs = RESTART_DELAY_MS_MIN
  #startedAtMs = 0
  #restartTimer: Timer | null = null
  #errorTail = ''
  #exitListeners: (() => void)[] = []

  constructor(definition: ServiceDefinition, options: ServiceProcessOptions) {
    this.definition = definition
    this.#options = options
  }

  get state(): ServiceState {
    return this.#state
  }

  get errorTail(): string {
    return this.#errorTail.trim()
  }

  status(): ServiceStatus {
    return {
      role: this.definition.role,
      id: this.definition.name,
      pid: this.#child?.pid ?? null,
      address: this.definition.address,
      log: this.definition.logFile,
      state: this.#state,
      restarts: this.#restartCount,
    }
  }

  start(): void {
    const [program, ...parameters] = this.definition.command
    if (program === undefined) throw new Error('a service needs a command')
    this.#stopping = false
    this.#state = 'running'
    this.#startedAtMs = this.#options.clock.nowMs()
    const child = spawn(program, parameters, {
      stdio: ['pipe', 'ignore', 'pipe'],
      env: { ...process.env, ...this.definition.environment },
      detached: true,
    })
    this.#child = child
    // The pipe is only there to close; a child that died first must not bring us down with EPIPE.
    child.stdin?.on('error', () => {})
    child.stderr?.on('data', (data: Buffer) => {
      this.#errorTail = (this.#errorTail + data.toString('utf8')).slice(-ERROR_TAIL_BYTES)
      fs.appendFile(this.definition.logFile, data, () => {})
    })
    child.once('error', (error) => this.#onExit(`could not be started: ${error.message}`, null))
    child.once('exit', (code, signal) =>
      this.#onExit(signal === null ? `exited with status ${code}` : `was ended by ${signal}`, code),
    )
  }

  #onExit(how: string, status: number | null): void {
    if (this.#child === null) return
    this.#child = null
    for (const listener of this.#exitListeners.splice(0)) listener()
    if (this.#stopping) {
      this.#state = 'stopped'
      return
    }
    const { clock, logger } = this.#options
    if (status === ExitStatus.done || status === ExitStatus.removed) {
      const isRemoved = status === ExitStatus.removed
      this.#state = isRemoved ? 'removed' : 'stopped'
      const why = isRemoved ? 'it was removed from the cluster' : 'it was asked to'
      logger.warn(`${this.definition.name} has ended because ${why}; not restarted`)
      this.#options.onOrderlyEnd?.()
      return
    }
    const livedMs = clock.nowMs() - this.#startedAtMs
    if (!this.#options.restart) {
      this.#state = 'stopped'
      logger.warn(`${this.definition.name} ${how}; not restarted (--no-restart)`)
      return
    }
    if (livedMs > STABLE_AFTER_MS) this.#delayMs = RESTART_DELAY_MS_MIN
    const delayMs = this.#delayMs
    this.#delayMs = Math.min(this.#delayMs * 2, RESTART_DELAY_MS_MAX)
    this.#state = 'waiting'
    this.#restartCount += 1
    logger.warn(`${this.definition.name} ${how}; restarting in ${delayMs / 1000} s`, {
      log: this.definition.logFile,
    })
    this.#restartTimer = clock.setTimer(delayMs, () => {
      this.#restartTimer = null
      this.start()
    })
  }

  /** Asks the process to stop; SIGKILL after a deadline. Resolves when it is gone. */
  stop(): Promise<void> {
    this.#stopping = true
    this.#restartTimer?.cancel()
    this.#restartTimer = null
    const child = this.#child
    if (child === null) {
      this.#state = 'stopped'
      return Promise.resolve()
    }
    return new Promise((resolve) => {
      const deadline = this.#options.clock.setTimer(STOP_DEADLINE_MS, () => {
        this.#options.logger.warn(
          `${this.definition.name} did not stop within ${STOP_DEADLINE_MS / 1000} s; killed`,
        )
        child.kill('SIGKILL')
      })
      this.#exitListeners.push(() => {
        deadline.cancel()
        resolve()
      })
      child.kill('SIGTERM')
    })
  }
}
