/** How a control message is declared: a name, a schema for what is asked and one for what is answered. */
import { type Static, type TSchema, Type } from '@sinclair/typebox'

export interface Method<P extends TSchema = TSchema, R extends TSchema = TSchema> {
  readonly params: P
  readonly result: R
}

export function method<P extends TSchema, R extends TSchema>(params: P, result: R): Method<P, R> {
  return { params, result }
}

export type MethodTable = Readonly<Record<string, Method>>
export type ParamsOf<T extends MethodTable, N extends keyof T> = Static<T[N]['params']>
export type ResultOf<T extends MethodTable, N extends keyof T> = Static<T[N]['result']>

/** An unsigned integer below 2^53. */
export const UInt = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })
export const Nothing = Type.Object({})
