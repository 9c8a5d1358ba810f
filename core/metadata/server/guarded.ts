/**
 * Handlers that answer only while this member is certainly the master: asked before a request is looked at and
 * again before its answer leaves. So an answer holds everything that was acknowledged before the request came
 * (linearizable reads), and no renewal is confirmed by a master that was deposed (rule L1). Without a lease a
 * request waits: it comes back with the next answers of a majority, or the place is lost.
 */
import type { ReplicatedLog } from '../log/replicated-log.ts'
import { wireError } from '../errors.ts'
import type { Handlers } from '../../wire/types.ts'
import type { MethodTable } from '../../wire/messages/method.ts'
import type { Peer } from '../../wire/types.ts'

export interface Leadership extends Pick<ReplicatedLog, 'isReady'> {
  /** False: this member is not the master. */
  whenReady(): Promise<boolean>
}

type AnyHandler = (params: unknown, peer: Peer) => unknown

export function guarded<T extends MethodTable>(leadership: Leadership, handlers: Handlers<T>): Handlers<T> {
  const guardedHandlers: Record<string, AnyHandler> = {}
  for (const [name, handler] of Object.entries(handlers as Record<string, AnyHandler>))
    guardedHandlers[name] = guard(leadership, handler)
  return guardedHandlers as unknown as Handlers<T>
}

function guard(leadership: Leadership, handler: AnyHandler): AnyHandler {
  const confirm = async (answer: unknown): Promise<unknown> => {
    if (leadership.isReady || (await leadership.whenReady())) return answer
    throw notMaster()
  }
  const ask = (params: unknown, peer: Peer): unknown => {
    const answer = handler(params, peer)
    return answer instanceof Promise ? answer.then(confirm) : answer
  }
  return (params, peer) => {
    if (leadership.isReady) return ask(params, peer)
    return leadership.whenReady().then((isReady) => {
      if (!isReady) throw notMaster()
      return ask(params, peer)
    })
  }
}

function notMaster(): Error {
  return wireError('NOT_MASTER', 'this metadata server is not the master')
}
