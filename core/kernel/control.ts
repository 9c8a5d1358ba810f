/**
 * The control protocol of a running process: one JSON document per line, requests one way and answers the other.
 * Free of any transport: the composition root feeds bytes in and writes the lines that come out (to a unix socket of
 * mode 0600). A peer that sends garbage, too long a line or too many requests is told why and closed; memory per
 * connection is bounded by the two maxima below.
 *
 *   -> {"version":1,"id":7,"command":"plugin.reload","parameters":{"name":"fuse"}}
 *   <- {"version":1,"id":7,"result":{...}}
 *   <- {"version":1,"id":7,"error":{"code":"PLUGIN_UNKNOWN","message":"...","next":"..."}}
 *
 * `plugin.list` has no parameters; `plugin.enable`, `plugin.disable`, `plugin.reload` take `name`.
 */
import { Type } from '@sinclair/typebox'
import { TypeCompiler } from '@sinclair/typebox/compiler'
import { CairnError, codeOf } from '../base/errors.ts'
import type { Clock, Timer } from '../platform/clock.ts'
import { kernelError, messageOf } from './errors.ts'
import type { PluginStatus } from './record.ts'

export const CONTROL_VERSION = 1
/** Requests are small; answers are lists of plugins. */
export const CONTROL_REQUEST_BYTES_MAX = 64 * 1024
export const CONTROL_ANSWER_BYTES_MAX = 4 * 1024 * 1024
export const CONTROL_IN_FLIGHT_MAX = 16
/** Longer than the longest start (60 s) and the stops before it. */
export const CONTROL_DEADLINE_MS = 180_000

const Id = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })
const Version = Type.Literal(CONTROL_VERSION)
const requestCheck = TypeCompiler.Compile(
  Type.Object({
    version: Version,
    id: Id,
    command: Type.String({ maxLength: 100 }),
    parameters: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
  }),
)
const ErrorBody = Type.Object({
  code: Type.String(),
  message: Type.String(),
  next: Type.Optional(Type.String()),
  retryable: Type.Optional(Type.Boolean()),
})
const answerCheck = TypeCompiler.Compile(
  Type.Object({
    version: Version,
    id: Type.Union([Id, Type.Null()]),
    result: Type.Optional(Type.Unknown()),
    error: Type.Optional(ErrorBody),
  }),
)
const nameCheck = TypeCompiler.Compile(Type.Object({ name: Type.String({ minLength: 1, maxLength: 4096 }) }))

export type ControlParameters = Readonly<Record<string, unknown>>
export type ControlCommand = (parameters: ControlParameters) => unknown
export type ControlCommands = Readonly<Record<string, ControlCommand>>

/** The part of the plugin host that the protocol reaches. */
export interface ControllableHost {
  list(): readonly PluginStatus[]
  enable(name: string): Promise<PluginStatus>
  disable(name: string): Promise<PluginStatus>
  reload(name: string): Promise<PluginStatus>
}

/** The commands of the kernel; the composition root may add its own beside them. */
export function pluginCommands(host: ControllableHost): ControlCommands {
  return {
    'plugin.list': () => host.list(),
    'plugin.enable': (parameters) => host.enable(nameIn(parameters)),
    'plugin.disable': (parameters) => host.disable(nameIn(parameters)),
    'plugin.reload': (parameters) => host.reload(nameIn(parameters)),
  }
}

function nameIn(parameters: ControlParameters): string {
  if (nameCheck.Check(parameters)) return parameters.name
  throw kernelError('CONTROL_PROTOCOL', 'expected the parameter "name" with the name of a plugin', {
    next: 'Give the name of a plugin.',
  })
}

/** What a session needs of its connection. */
export interface ControlPeer {
  send(line: string): void
  close(): void
}

/** Cuts a byte stream into lines. Throws CONTROL_PROTOCOL when one is too long. */
export class LineDecoder {
  readonly #lineBytesMax: number
  #parts: Uint8Array[] = []
  #bytes = 0

  constructor(lineBytesMax: number) {
    this.#lineBytesMax = lineBytesMax
  }

  /** Lines completed by these bytes. The bytes may be reused by the caller afterwards. */
  push(borrowedBytes: Uint8Array): string[] {
    const lines: string[] = []
    let from = 0
    for (;;) {
      const end = borrowedBytes.indexOf(10, from)
      const part = borrowedBytes.subarray(from, end < 0 ? borrowedBytes.length : end)
      if (this.#bytes + part.length > this.#lineBytesMax)
        throw kernelError('CONTROL_PROTOCOL', `a line is longer than ${this.#lineBytesMax} bytes`)
      if (part.length > 0) this.#parts.push(new Uint8Array(part)) // a copy: Buffer's slice() would not be
      this.#bytes += part.length
      if (end < 0) return lines
      lines.push(Buffer.concat(this.#parts).toString('utf8'))
      this.#parts = []
      this.#bytes = 0
      from = end + 1
    }
  }
}

/** The server's end of one connection. */
export class ControlSession {
  readonly #commands: ControlCommands
  readonly #peer: ControlPeer
  readonly #decoder = new LineDecoder(CONTROL_REQUEST_BYTES_MAX)
  #inFlightCount = 0
  #isClosed = false

  constructor(commands: ControlCommands, peer: ControlPeer) {
    this.#commands = commands
    this.#peer = peer
  }

  /** Bytes from the peer; never throws. */
  receive(borrowedBytes: Uint8Array): void {
    if (this.#isClosed) return
    try {
      for (const line of this.#decoder.push(borrowedBytes)) if (!this.#isClosed) this.#receiveLine(line)
    } catch (error) {
      this.#refuse(error)
    }
  }

  /** The connection is gone: answers still to come are dropped. */
  disconnected(): void {
    this.#isClosed = true
  }

  #receiveLine(line: string): void {
    const request = parseLine(line)
    if (!requestCheck.Check(request))
      throw kernelError(
        'CONTROL_PROTOCOL',
        `not a request of version ${CONTROL_VERSION} of the control protocol`,
      )
    const { id, command, parameters = {} } = request
    if (this.#inFlightCount >= CONTROL_IN_FLIGHT_MAX) {
      this.#answerError(
        id,
        kernelError('CONTROL_BUSY', `${CONTROL_IN_FLIGHT_MAX} requests are in flight already`),
      )
      return
    }
    const run = Object.hasOwn(this.#commands, command) ? this.#commands[command] : undefined
    if (run === undefined) {
      this.#answerError(id, kernelError('CONTROL_PROTOCOL', `this process knows no command "${command}"`))
      return
    }
    this.#inFlightCount += 1
    Promise.resolve()
      .then(() => run(parameters))
      .then(
        (result) => this.#answer({ version: CONTROL_VERSION, id, result: result ?? null }),
        (error: unknown) => this.#answerError(id, error),
      )
      .finally(() => (this.#inFlightCount -= 1))
      .catch((error: unknown) => this.#refuse(error)) // a result that is not JSON, or a peer that cannot be written to
  }

  #answerError(id: number | null, error: unknown): void {
    const known = error instanceof CairnError ? error : undefined
    this.#answer({
      version: CONTROL_VERSION,
      id,
      error: {
        code: codeOf(error),
        message: messageOf(error),
        next: known?.next,
        retryable: known?.retryable,
      },
    })
  }

  #answer(document: object): void {
    if (!this.#isClosed) this.#peer.send(`${JSON.stringify(document)}\n`)
  }

  #refuse(error: unknown): void {
    if (this.#isClosed) return
    try {
      this.#answerError(null, error)
    } finally {
      this.#isClosed = true
      this.#peer.close()
    }
  }
}

interface Pending {
  readonly resolve: (result: unknown) => void
  readonly reject: (error: Error) => void
  readonly timer: Timer
}

/** The client's end: requests out, answers in. */
export class ControlClient {
  readonly #clock: Clock
  readonly #peer: ControlPeer
  readonly #decoder = new LineDecoder(CONTROL_ANSWER_BYTES_MAX)
  readonly #pending = new Map<number, Pending>()
  #lastId = 0
  #closedBy: Error | undefined

  constructor(clock: Clock, peer: ControlPeer) {
    this.#clock = clock
    this.#peer = peer
  }

  /** Sends a command. Rejects with the error of the other process, CONTROL_CLOSED, CONTROL_BUSY or CONTROL_PROTOCOL. */
  request<Result = unknown>(
    command: string,
    parameters: ControlParameters = {},
    deadlineMs: number = CONTROL_DEADLINE_MS,
  ): Promise<Result> {
    if (this.#closedBy !== undefined) return Promise.reject(this.#closedBy)
    if (this.#pending.size >= CONTROL_IN_FLIGHT_MAX)
      return Promise.reject(
        kernelError('CONTROL_BUSY', `${CONTROL_IN_FLIGHT_MAX} requests are in flight already`),
      )
    const id = ++this.#lastId
    return new Promise((resolve, reject) => {
      const timer = this.#clock.setTimer(deadlineMs, () => {
        this.#pending.delete(id)
        reject(kernelError('CONTROL_CLOSED', `no answer to ${command} within ${deadlineMs} ms`))
      })
      this.#pending.set(id, { resolve: resolve as (result: unknown) => void, reject, timer })
      this.#peer.send(`${JSON.stringify({ version: CONTROL_VERSION, id, command, parameters })}\n`)
    })
  }

  /** Bytes from the other process; never throws. */
  receive(borrowedBytes: Uint8Array): void {
    if (this.#closedBy !== undefined) return
    try {
      for (const line of this.#decoder.push(borrowedBytes)) this.#receiveLine(line)
    } catch (error) {
      this.#close(error instanceof Error ? error : kernelError('CONTROL_PROTOCOL', messageOf(error)))
      this.#peer.close()
    }
  }

  /** The connection is gone. */
  disconnected(): void {
    this.#close(kernelError('CONTROL_CLOSED', 'the other process closed the control connection'))
  }

  #receiveLine(line: string): void {
    const answer = parseLine(line)
    if (!answerCheck.Check(answer))
      throw kernelError(
        'CONTROL_PROTOCOL',
        `not an answer of version ${CONTROL_VERSION} of the control protocol`,
      )
    const { id, error } = answer
    const failure = error === undefined ? undefined : errorOf(error)
    if (id === null) throw failure ?? kernelError('CONTROL_PROTOCOL', 'an answer without id and error')
    const pending = this.#pending.get(id)
    if (pending === undefined) return // came after its deadline
    this.#pending.delete(id)
    pending.timer.cancel()
    if (failure === undefined) pending.resolve(answer.result)
    else pending.reject(failure)
  }

  #close(error: Error): void {
    this.#closedBy ??= error
    for (const { reject, timer } of this.#pending.values()) {
      timer.cancel()
      reject(error)
    }
    this.#pending.clear()
  }
}

function errorOf(body: { code: string; message: string; next?: string; retryable?: boolean }): CairnError {
  return new CairnError(body.code, body.message, {
    retryable: body.retryable === true,
    ...(body.next === undefined ? {} : { next: body.next }),
  })
}

function parseLine(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch (error) {
    throw kernelError('CONTROL_PROTOCOL', `a line is not JSON: ${messageOf(error)}`, { cause: error })
  }
}
