/**
 * Answers the key-value methods of a session. Transactions go through the log; questions are answered from
 * applied state, as all others (file-system-service.ts). Watchers wait in key-value-watchers.ts.
 */
import type { keyValueMethods } from '../../../wire/messages/key-value.ts'
import type { ParamsOf, ResultOf } from '../../../wire/messages/method.ts'
import { wireError } from '../../errors.ts'
import { keyFault, namespaceFault } from '../../keyvalue/limits.ts'
import { entryOf, listAt } from '../../keyvalue/read.ts'
import type { ReplicatedLog } from '../../log/replicated-log.ts'
import { type Refusal, valueOf } from '../../state/result.ts'
import type { MetadataState } from '../../state/state.ts'
import type { KeyValueWatchers } from './key-value-watchers.ts'

type Methods = typeof keyValueMethods

/** One handler per method. Throws or rejects with a CairnError whose code is a WireCode. */
export type KeyValueHandlers = {
  readonly [N in keyof Methods]: (
    session: number,
    params: ParamsOf<Methods, N>,
  ) => ResultOf<Methods, N> | Promise<ResultOf<Methods, N>>
}

export interface KeyValueServiceOptions {
  readonly state: MetadataState
  readonly log: ReplicatedLog
  readonly watchers: KeyValueWatchers
}

export function keyValueHandlers(options: KeyValueServiceOptions): KeyValueHandlers {
  const { state, log, watchers } = options
  const table = state.keyValue
  const checkReady = (): void => {
    if (!log.isReady) throw wireError('STARTING', 'the metadata server is loading its state')
  }
  return {
    'kv.get'(_session, { namespace, key }) {
      checkReady()
      check(namespaceFault(namespace) ?? keyFault(key))
      const row = table.get(namespace, key)
      return { revision: log.appliedIndex, ...(row === undefined ? {} : { entry: entryOf(row) }) }
    },
    'kv.list'(_session, { revision = log.appliedIndex, ...question }) {
      checkReady()
      check(namespaceFault(question.namespace))
      if (!watchers.reaches(revision)) {
        throw wireError('COMPACTED', `the history no longer reaches revision ${revision}`)
      }
      return { revision, ...listAt(table, question, revision) }
    },
    'kv.transact': (session, params) => transact(options, session, params),
    'kv.watch'(session, question) {
      checkReady()
      check(namespaceFault(question.namespace))
      return watchers.wait(session, question)
    },
    'kv.unwatch'(session, { watch }) {
      watchers.cancel(session, watch)
      return {}
    },
  }
}

async function transact(
  { state, log }: KeyValueServiceOptions,
  session: number,
  params: ParamsOf<Methods, 'kv.transact'>,
): Promise<ResultOf<Methods, 'kv.transact'>> {
  const answer = valueOf(await log.propose({ type: 'kv.transact', session, ...params }))
  const { failed, present } = answer
  const key = failed === undefined ? undefined : params.guards[failed]?.key
  const revision = failed === undefined ? 0 : (present?.[failed] ?? 0)
  if (key === undefined || revision === 0) return answer
  // The kept answer has revisions only. What a key held at the revision of its change never changes.
  const { namespace } = params
  const now = state.keyValue.get(namespace, key)
  const row = now?.revision === revision ? now : state.keyValue.history.find(namespace, key, revision)
  // An old answer, asked for again after a restart. It changed nothing: a new try is as good.
  if (row === undefined) throw wireError('TRY_AGAIN', 'the guards are to be looked at again')
  return { ...answer, value: row.value }
}

function check(fault: Refusal | null): void {
  if (fault !== null) throw wireError(fault.error, fault.message)
}
