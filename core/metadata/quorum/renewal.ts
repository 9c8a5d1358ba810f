/**
 * Makes a new repository of one member out of a store that is a copy or a survivor (chunks/renewal.ts says what
 * changes and why). Everything that the source's log holds is applied, acknowledged or not: what was acknowledged
 * is in it, and of the rest nobody was told an outcome. The source is only read.
 */
import type { HardStateFile } from '../../platform/hard-state.ts'
import type { RowChange, Store } from '../../platform/store.ts'
import { present } from '../../base/assert.ts'
import { CairnError } from '../../base/errors.ts'
import { CLUSTER_NAME_KEY, CLUSTER_UUID_KEY } from '../chunks/administration.ts'
import { nextMember, renewalBase, renewState } from '../chunks/renewal.ts'
import { decodeLogEntry, encodeEntry } from '../log/codec.ts'
import type { StateMachine } from '../state/apply.ts'
import type { Command } from '../state/commands.ts'
import { createStateMachine } from '../state/machine.ts'
import { HIGHEST_LEVEL, META_TABLE } from '../state/feature-levels.ts'
import { CONFIGURATION_KEY, configurationText, recover } from './recovery.ts'

const ROWS_PER_COMMIT = 4_096
/** One entry at a time: the largest is far below. */
const ENTRY_BYTES_MAX = 2 ** 30

export interface RenewalParts {
  readonly source: Store
  /** Empty. */
  readonly target: Store
  readonly hardState: HardStateFile
  /** Of the source's member, when it is known. */
  readonly memberKnown: number
  readonly termKnown: number
  readonly host: string
  readonly port: number
  readonly name: string
  readonly wallSeconds: number
  readonly message: string
  /** The name of the cluster it must be of. */
  readonly cluster: string
}

export interface Renewed {
  readonly member: number
  readonly base: number
  readonly clusterUuid: string
  /** The last entry of the source. */
  readonly lastIndex: number
  readonly lastTerm: number
  readonly sessionCount: number
}

/** Durable when it resolves; closes neither store. Rejects as `recover`, and with WRONG_CLUSTER. */
export async function renew(parts: RenewalParts): Promise<Renewed> {
  const { source, target, hardState, host, port, name, wallSeconds } = parts
  const machine = createStateMachine()
  const { state } = machine
  const recovered = await recover(source, machine as unknown as StateMachine)
  const { log } = recovered
  for (let index = machine.appliedIndex + 1; index <= log.lastIndex(); index++) {
    const entry = present(log.entries(index, index, ENTRY_BYTES_MAX)[0], 'the log has no gaps')
    if (entry.kind === 'command') machine.apply(decodeLogEntry(entry.data, index), index)
    else machine.skip(index)
  }
  const uuid = state.config.get(CLUSTER_UUID_KEY)
  const cluster = String(state.config.get(CLUSTER_NAME_KEY) ?? '')
  if (uuid === undefined || cluster !== parts.cluster)
    throw new CairnError('WRONG_CLUSTER', `it is of cluster '${cluster}', not of '${parts.cluster}'`, {
      next: 'check -c and the name',
    })
  const lastIndex = log.lastIndex()
  const lastTerm = log.term(lastIndex) ?? 0
  const sessions = [...state.sessions.keys()].toSorted((a, b) => a - b)
  for (const session of sessions) {
    const command: Command = { type: 'session.expire', session, clean: false }
    machine.apply({ command, wallSeconds, wallNanoseconds: 0 }, machine.appliedIndex + 1)
  }
  const base = renewalBase(state, wallSeconds, machine.appliedIndex, Math.max(lastTerm, parts.termKnown))
  const member = nextMember(state, parts.memberKnown)
  const { message } = parts
  // There is nobody who could understand less.
  if (state.level.inForce < HIGHEST_LEVEL) state.level.raiseTo(HIGHEST_LEVEL)
  renewState(state, { base, member, host, port, name, timeMs: wallSeconds * 1000, message })
  await write(target, machine, base, member)
  await hardState.save({ member, term: base, vote: 0 })
  return { member, base, clusterUuid: String(uuid), lastIndex, lastTerm, sessionCount: sessions.length }
}

async function write(
  target: Store,
  { state }: ReturnType<typeof createStateMachine>,
  base: number,
  member: number,
): Promise<void> {
  const configuration = configurationText({ voters: [member], learners: [] })
  let rows: RowChange[] = [{ table: META_TABLE, key: CONFIGURATION_KEY, value: configuration }]
  for (const table of [state.level, ...state.tables()]) {
    for (const [key, value] of table.rows()) {
      rows.push({ table: table.name, key, value })
      if (rows.length < ROWS_PER_COMMIT) continue
      await target.commit({ entries: [], rows, appliedIndex: 0 })
      rows = []
    }
  }
  const data = encodeEntry({ index: base, term: base, kind: 'empty', data: Buffer.alloc(0) })
  await target.commit({ entries: [{ index: base, term: base, data }], rows, appliedIndex: base })
}
