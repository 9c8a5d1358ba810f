/**
 * Calls and notifications of the peer: decodes, checks against the method's schema, runs the handler and
 * hands back the frame to answer with. Bounded by count and bytes of what has not been answered.
 */
import { AssertionError } from '../base/assert.ts'
import { CairnError } from '../base/errors.ts'
import type { Logger } from '../platform/logger.ts'
import { isWireCode, wireCodes } from './codes.ts'
import { decodeMessage, encodeMessage, shapeFault } from './codec.ts'
import { META_BYTES_MAX } from './limits.ts'
import type { Method, MethodTable } from './messages/method.ts'
import type { Handlers, Peer, WireLimits } from './types.ts'

type Handler = (params: unknown, peer: Peer) => unknown

interface ServedMethod {
  readonly declared: Method
  readonly handler: Handler
}

export type Reply = (requestId: number, isError: boolean, meta: Buffer) => void

export class ServedCalls {
  readonly #methods = new Map<string, ServedMethod>()
  readonly #limits: WireLimits
  readonly #logger: Logger
  readonly #reply: Reply
  #count = 0
  #sizeBytes = 0

  constructor(limits: WireLimits, logger: Logger, reply: Reply) {
    this.#limits = limits
    this.#logger = logger
    this.#reply = reply
  }

  serve<T extends MethodTable>(table: T, handlers: Handlers<T>): void {
    for (const name of Object.keys(table)) {
      const declared = table[name]
      const handler = handlers[name] as Handler | undefined
      if (declared !== undefined && handler !== undefined) this.#methods.set(name, { declared, handler })
    }
  }

  onCall(requestId: number, borrowedMeta: Buffer, peer: Peer): void {
    const sizeBytes = borrowedMeta.length
    if (this.#full(sizeBytes)) {
      this.#fail(requestId, '', new CairnError('OVERLOADED', 'too many unanswered calls on this connection'))
      return
    }
    let name = ''
    let answer: unknown
    let served: ServedMethod
    try {
      const message = decodeCall(borrowedMeta)
      name = message.name
      served = this.#lookup(name)
      answer = served.handler(checkedParams(name, served.declared, message.params), peer)
    } catch (error) {
      this.#fail(requestId, name, error)
      return
    }
    if (!(answer instanceof Promise)) {
      this.#succeed(requestId, name, answer)
      return
    }
    this.#count++
    this.#sizeBytes += sizeBytes
    answer.then(
      (value) => {
        this.#finished(sizeBytes)
        this.#succeed(requestId, name, value)
      },
      (error) => {
        this.#finished(sizeBytes)
        this.#fail(requestId, name, error)
      },
    )
  }

  /** A text when the connection must end: dropping a notification would lose what it says. */
  onNotify(borrowedMeta: Buffer, peer: Peer): string | null {
    const sizeBytes = borrowedMeta.length
    if (this.#full(sizeBytes)) return 'more notifications than can be handled'
    let name = ''
    try {
      const message = decodeCall(borrowedMeta)
      name = message.name
      const served = this.#lookup(name)
      const answer = served.handler(checkedParams(name, served.declared, message.params), peer)
      if (!(answer instanceof Promise)) return null
      this.#count++
      this.#sizeBytes += sizeBytes
      answer.then(
        () => this.#finished(sizeBytes),
        (error) => {
          this.#finished(sizeBytes)
          this.#logFailure(name, error)
        },
      )
    } catch (error) {
      this.#logFailure(name, error)
    }
    return null
  }

  #full(sizeBytes: number): boolean {
    return (
      this.#count >= this.#limits.servedCallCountMax ||
      this.#sizeBytes + sizeBytes > this.#limits.servedCallBytesMax
    )
  }

  #finished(sizeBytes: number): void {
    this.#count--
    this.#sizeBytes -= sizeBytes
  }

  #lookup(name: string): ServedMethod {
    const served = this.#methods.get(name)
    if (served === undefined) throw new CairnError('UNKNOWN_METHOD', `method ${name} is not served here`)
    return served
  }

  #succeed(requestId: number, name: string, value: unknown): void {
    let meta: Buffer
    try {
      meta = encodeMessage(value ?? {})
    } catch (error) {
      this.#fail(requestId, name, error)
      return
    }
    if (meta.length > META_BYTES_MAX)
      this.#fail(requestId, name, new Error(`answer of ${meta.length} bytes is too large`))
    else this.#reply(requestId, false, meta)
  }

  #fail(requestId: number, name: string, error: unknown): void {
    // a bug must not go on as an error code: the process ends before it can hurt data
    if (error instanceof AssertionError) throw error
    const known = error instanceof CairnError && isWireCode(error.code)
    if (!known) this.#logFailure(name, error)
    const answer = known
      ? {
          code: error.code,
          message: error.message.slice(0, 1000),
          retryable: error.retryable || wireCodes[error.code].retryable,
          next: error.next,
        }
      : { code: 'INTERNAL', message: `${name} failed; see the log of the server`, retryable: false }
    this.#reply(requestId, true, encodeMessage(answer))
  }

  #logFailure(name: string, error: unknown): void {
    if (error instanceof AssertionError) throw error
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
    this.#logger.error('a handler failed', { method: name, error: text })
  }
}

function decodeCall(borrowedMeta: Buffer): { name: string; params: unknown } {
  const message = decodeMessage(borrowedMeta)
  if (!Array.isArray(message) || message.length !== 2 || typeof message[0] !== 'string')
    throw new CairnError('BAD_MESSAGE', 'a call is a list of method and parameters')
  return { name: message[0], params: message[1] }
}

function checkedParams(name: string, declared: Method, params: unknown): unknown {
  const fault = shapeFault(declared.params, params)
  if (fault !== null) throw new CairnError('BAD_MESSAGE', `${name} ${fault}`)
  return params
}
