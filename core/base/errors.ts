/**
 * The one error class for everything that is not a bug. Decide by `code`, never by message text.
 * Each room lists its codes in its own `errors.ts`; codes that cross the wire are in `wire/codes.ts`.
 */

export interface CairnErrorOptions {
  /** May the same call succeed later without anybody changing anything? */
  readonly retryable?: boolean
  /** What a person should do next, one sentence. */
  readonly next?: string
  readonly cause?: unknown
  /** It answers a question and reports no fault: no stack is taken, which costs more than many an answer. */
  readonly isAnswer?: boolean
}

export class CairnError extends Error {
  override readonly name = 'CairnError'
  readonly code: string
  readonly retryable: boolean
  readonly next: string | undefined

  constructor(code: string, message: string, options: CairnErrorOptions = {}) {
    const { stackTraceLimit } = Error
    if (options.isAnswer === true) Error.stackTraceLimit = 0
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    Error.stackTraceLimit = stackTraceLimit
    this.code = code
    this.retryable = options.retryable ?? false
    this.next = options.next
  }
}

/** The code of anything thrown: a CairnError's or a system error's, else 'UNKNOWN'. */
export function codeOf(error: unknown): string {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code
  return 'UNKNOWN'
}
