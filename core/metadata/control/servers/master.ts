/**
 * What every part of the master shares: committed state, the log, time, randomness, parameters. Parts know
 * each other only through the small interfaces at the end of their own files; metadata-server.ts connects them.
 */
import type { Clock, Timer } from '../../../platform/clock.ts'
import type { Logger } from '../../../platform/logger.ts'
import type { Random } from '../../../platform/random.ts'
import { isInRecovery } from '../../chunks/administration.ts'
import { type ParameterName, parameterOf } from '../../chunks/parameters.ts'
import type { ChunkState } from '../../chunks/handlers.ts'
import type { AppliedListener, ReplicatedLog } from '../../log/replicated-log.ts'
import type { OutcomeOf } from '../../state/apply.ts'
import type { Command } from '../../state/commands.ts'

const RETRY_MS = 200

export class Master {
  readonly state: ChunkState
  readonly log: ReplicatedLog
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
  #isStopped = false
  readonly #timers = new Set<Timer>()
  readonly #unsubscribe: (() => void)[] = []

  constructor(parts: {
    state: ChunkState
    log: ReplicatedLog
    clock: Clock
    random: Random
    logger: Logger
  }) {
    this.state = parts.state
    this.log = parts.log
    this.clock = parts.clock
    this.random = parts.random
    this.logger = parts.logger
  }

  get isStopped(): boolean {
    return this.#isStopped
  }

  /** The metadata may be behind the chunk servers: nothing is served, repaired or deleted (rule G1). */
  get isInRecovery(): boolean {
    return isInRecovery(this.state)
  }

  /** No timer of a part runs after this, and no listener. */
  stop(): void {
    this.#isStopped = true
    for (const timer of this.#timers) timer.cancel()
    this.#timers.clear()
    for (const unsubscribe of this.#unsubscribe.splice(0)) unsubscribe()
  }

  /** As ReplicatedLog.onApplied; ends with the master. */
  onApplied(listener: AppliedListener): void {
    this.#unsubscribe.push(this.log.onApplied(listener))
  }

  parameter(name: ParameterName): number {
    return parameterOf(this.state.config, name)
  }

  /** As clock.setTimer; ends with the master. */
  after(delayMs: number, callback: () => void): Timer {
    const timer = this.clock.setTimer(delayMs, () => {
      this.#timers.delete(timer)
      if (!this.#isStopped) callback()
    })
    this.#timers.add(timer)
    return {
      cancel: () => {
        this.#timers.delete(timer)
        timer.cancel()
      },
    }
  }

  every(intervalMs: number, callback: () => void): void {
    this.after(intervalMs, () => {
      callback()
      this.every(intervalMs, callback)
    })
  }

  defer(callback: () => void): void {
    this.clock.defer(() => {
      if (!this.#isStopped) callback()
    })
  }

  /**
   * Commits in the background. The log never rejects; when it is full the command is proposed again a little
   * later (it re-checks its condition anyway), any other refusal means that the master is ending.
   */
  submit<C extends Command>(command: C, then?: (outcome: OutcomeOf<C['type']>) => void): void {
    this.log
      .propose(command)
      .then((result) => {
        if (this.#isStopped) return
        if ('ok' in result) then?.(result.ok)
        else if (result.error === 'OVERLOADED') this.after(RETRY_MS, () => this.submit(command, then))
        else this.logger.warn('a command was refused', { type: command.type, code: result.error })
      })
      .catch((error: unknown) =>
        this.logger.error('a follow-up failed', { type: command.type, error: String(error) }),
      )
  }
}
