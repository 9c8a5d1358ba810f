/** What a command gives back. A refused command has changed nothing. */
import type { WireCode } from '../../wire/codes.ts'
import { wireError } from '../errors.ts'

export interface Refusal {
  readonly error: WireCode
  readonly message: string
}
export type CommandResult<Value = unknown> = { readonly ok: Value } | Refusal

export function refused(error: WireCode, message: string): Refusal {
  return { error, message }
}

/** For request handlers: the value, or the refusal as an exception. */
export function valueOf<Value>(result: CommandResult<Value>): Value {
  if ('error' in result) throw wireError(result.error, result.message)
  return result.ok
}
