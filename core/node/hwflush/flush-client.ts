/**
 * The client of the flush check: validates what is on the disk, tells the server the last valid counter of each
 * thread, and goes on from there: write a block, sync, tell. It ends with an error when the server says that a counter
 * went back (CACHE_ERROR), when the disk gives an error, or when the server is gone for long.
 */
import { CairnError, codeOf } from '../../base/errors.ts'
import type { Clock } from '../../platform/clock.ts'
import type { Disk } from '../../platform/disk.ts'
import { type Address, formatAddress, type Network } from '../../platform/network.ts'
import { CounterFile, type Validation } from './counter-file.ts'
import {
  type ClientMessage,
  clientLine,
  LineConnection,
  parseServerLine,
  type ServerMessage,
} from './protocol.ts'

const CONNECT_TIMEOUT_MS = 5_000
/** For all answers after a connection. */
const ANSWER_TIMEOUT_MS = 30_000
const CONNECT_AGAIN_MS = 1_000
/** Nothing is written meanwhile. */
const SERVER_LOST_MS = 60_000

export interface FlushClientOptions {
  readonly disk: Disk
  readonly network: Network
  readonly clock: Clock
  readonly server: Address
  /** Who this is to the server: the same after a power cut. */
  readonly key: string
  readonly threads: number
  /** Another disk than before: files of an earlier check go, and the server forgets it. */
  readonly isNew: boolean
  readonly onValidated: (thread: number, validation: Validation) => void
}

interface Thread {
  readonly thread: number
  readonly file: CounterFile
  /** Flushed, as far as the disk says. */
  counter: number
}

export class FlushClient {
  readonly #options: FlushClientOptions
  #threads: readonly Thread[] = []
  #lines: LineConnection | null = null
  #isEnded = false
  #failure: CairnError | null = null
  /** While there is no connection: writers wait. */
  #connecting: Promise<void> | null = null
  #isNew: boolean
  /** Blocks flushed since the start. */
  writtenCount = 0

  constructor(options: FlushClientOptions) {
    this.#options = options
    this.#isNew = options.isNew
  }

  get counters(): number[] {
    return this.#threads.map(({ counter }) => counter)
  }

  /** Until `stop`. Rejects with CACHE_ERROR, UNREACHABLE, REFUSED, or what the disk said. */
  async run(): Promise<void> {
    try {
      await this.#openAll()
      await this.#connect()
      await Promise.all(this.#threads.map((thread) => this.#writeOn(thread)))
    } finally {
      this.#isEnded = true
      this.#lines?.close('done')
      for (const { file } of this.#threads) file.close()
    }
    if (this.#failure !== null) throw this.#failure
  }

  /** `run` resolves soon. */
  stop(): void {
    this.#isEnded = true
  }

  async #openAll(): Promise<void> {
    const { disk, threads, isNew, onValidated } = this.#options
    if (isNew) CounterFile.removeAll(disk)
    const opened: Thread[] = []
    this.#threads = opened
    for (let thread = 0; thread < threads; thread++) {
      const file = await CounterFile.open(disk, thread)
      const validation = await file.validate()
      opened.push({ thread, file, counter: validation.lastValid })
      onValidated(thread, validation)
    }
  }

  async #writeOn(thread: Thread): Promise<void> {
    while (!this.#isEnded) {
      try {
        if (this.#connecting !== null) await this.#connecting
        if (this.#hasEnded()) return
        await thread.file.write(thread.counter + 1)
      } catch (error) {
        return this.#fail(error)
      }
      thread.counter++
      this.writtenCount++
      await this.#send({ type: 'done', thread: thread.thread, counter: thread.counter })
    }
  }

  /** Asked after others have run: the compiler remembers what was. */
  #hasEnded(): boolean {
    return this.#isEnded
  }

  #fail(error: unknown): void {
    this.#isEnded = true
    this.#failure ??=
      error instanceof CairnError ? error : new CairnError(codeOf(error), String(error), { cause: error })
  }

  async #send(message: ClientMessage): Promise<void> {
    await this.#lines?.send(clientLine(message))
  }

  /** Until the server has accepted every thread. */
  async #connect(): Promise<void> {
    const { clock, server } = this.#options
    const endMs = clock.nowMs() + SERVER_LOST_MS
    for (;;) {
      const reason = await this.#tryToConnect()
      if (reason === '' || this.#isEnded) return
      if (clock.nowMs() >= endMs)
        throw new CairnError('UNREACHABLE', `no answer from ${formatAddress(server)}: ${reason}`, {
          next: 'start the server there with: cairn hwflush-check -l',
        })
      await new Promise<void>((resolve) => void clock.setTimer(CONNECT_AGAIN_MS, resolve))
    }
  }

  /** '' or why not. Rejects when the server has found a lost counter, or refuses. */
  #tryToConnect(): Promise<string> {
    const { network, server, clock, key, threads } = this.#options
    return new Promise((resolve, reject) => {
      const waiting = new Set(this.#threads.map(({ thread }) => thread))
      const timer = clock.setTimer(ANSWER_TIMEOUT_MS, () => lines.close('no answer'))
      const settle = (reason: string): void => {
        timer.cancel()
        resolve(reason)
      }
      const lines: LineConnection = new LineConnection(network.connect(server, CONNECT_TIMEOUT_MS), {
        onOpen: () => {
          this.#lines = lines
          void this.#send({ type: 'hello', threads, key })
          for (const { thread, counter } of this.#threads)
            void this.#send({ type: 'start', thread, counter, isNew: this.#isNew })
        },
        onLine: (line) => {
          const error = this.#onAnswer(parseServerLine(line), waiting)
          if (error !== null) reject(error)
          else if (waiting.size === 0) settle('')
        },
        onClose: (reason) => {
          this.#lines = null
          const wasAccepted = waiting.size === 0
          settle(reason)
          if (wasAccepted) this.#lost()
        },
      })
      lines.start()
    })
  }

  /** What ends the check, or null. */
  #onAnswer(message: ServerMessage, waiting: Set<number>): CairnError | null {
    switch (message.type) {
      case 'ok':
        waiting.delete(message.thread)
        // the server has forgotten what was before
        if (waiting.size === 0) this.#isNew = false
        return null
      case 'error': {
        const counter = this.#threads[message.thread]?.counter ?? 0
        const error = cacheError(message.thread, message.known, counter)
        this.#fail(error)
        return error
      }
      case 'refused': {
        const error = new CairnError('REFUSED', `the server refuses: ${message.reason}`)
        this.#fail(error)
        return error
      }
      default:
        return message satisfies never
    }
  }

  #lost(): void {
    if (this.#isEnded) return
    this.#connecting = this.#connect()
      .catch((error: unknown) => this.#fail(error))
      .finally(() => {
        this.#connecting = null
      })
  }
}

function cacheError(thread: number, known: number, counter: number): CairnError {
  const message =
    `cache error detected! thread ${thread}: the disk said that it had flushed block ${known}, ` +
    `and holds ${counter === 0 ? 'none' : `no further than ${counter}`}`
  return new CairnError('CACHE_ERROR', message, {
    next: 'it loses flushed data when its power is cut: do not use it, or switch its write cache off and check again (--new for another disk)',
  })
}
