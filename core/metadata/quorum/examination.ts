/**
 * What a stopped repository holds: who the member is, what its rows and its log are of, and what is damaged.
 * Reads all of it and changes nothing of its contents. `cairn mds check`, and every command that builds a
 * member anew, ask this first.
 */
import { CairnError, codeOf } from '../../base/errors.ts'
import type { HardStateFile, MemberHardState } from '../../platform/hard-state.ts'
import type { Store } from '../../platform/store.ts'
import { type Configuration, emptyConfiguration } from '../../raft/index.ts'
import { CLUSTER_NAME_KEY, CLUSTER_UUID_KEY } from '../chunks/administration.ts'
import { createStateMachine } from '../state/machine.ts'
import type { StateMachine } from '../state/apply.ts'
import type { MemberRow } from '../state/rows.ts'
import { recover } from './recovery.ts'

/** A store that can also look at what it lies on. */
export interface ExaminedStore extends Store {
  problems(): Promise<readonly string[]>
}

export interface Fault {
  readonly code: string
  readonly message: string
}

export interface Examination {
  /** Null: unknown. */
  readonly hardState: MemberHardState | null
  /** What could be read, also of a damaged store. */
  readonly cluster: { readonly name: string; readonly uuid: string } | null
  readonly appliedIndex: number
  readonly lastIndex: number
  readonly lastTerm: number
  readonly rowCount: number
  readonly configuration: Configuration
  readonly members: readonly MemberRow[]
  /** Empty: the member can start. */
  readonly faults: readonly Fault[]
}

/** `openStore` may reject: then that is a fault, too. Closes the store. */
export async function examine(
  openStore: () => Promise<ExaminedStore>,
  hardStateFile: HardStateFile,
): Promise<Examination> {
  const faults: Fault[] = []
  const hardState = await examineHardState(hardStateFile, faults)
  const machine = createStateMachine()
  const found = { appliedIndex: 0, lastIndex: 0, lastTerm: 0, rowCount: 0, configuration: emptyConfiguration }
  try {
    const store = await openStore()
    try {
      for (const problem of await store.problems()) faults.push({ code: 'STORE_FAILED', message: problem })
      const recovered = await recover(store, machine as unknown as StateMachine)
      const { log, rowCount } = recovered
      const lastIndex = log.lastIndex()
      Object.assign(found, {
        appliedIndex: machine.appliedIndex,
        lastIndex,
        lastTerm: log.term(lastIndex) ?? 0,
        rowCount,
        configuration: recovered.configuration ?? emptyConfiguration,
      })
    } finally {
      await store.close()
    }
  } catch (error) {
    faults.push(faultOf(error))
  }
  if (hardState !== null && found.lastTerm > hardState.term)
    faults.push({
      code: 'RAFT_HARD_STATE_LOST',
      message: `the log reaches term ${found.lastTerm}, term and vote are of term ${hardState.term}`,
    })
  const { config, members } = machine.state
  const uuid = config.get(CLUSTER_UUID_KEY)
  return {
    ...found,
    hardState,
    cluster: uuid === undefined ? null : { name: String(config.get(CLUSTER_NAME_KEY)), uuid: String(uuid) },
    members: [...members.values()].toSorted((a, b) => a.member - b.member),
    faults,
  }
}

async function examineHardState(file: HardStateFile, faults: Fault[]): Promise<MemberHardState | null> {
  try {
    const hardState = await file.load()
    if (hardState === null)
      faults.push({
        code: 'HARD_STATE_DAMAGED',
        message: 'the file with term and vote of this member is gone',
      })
    return hardState
  } catch (error) {
    faults.push(faultOf(error))
    return null
  }
}

function faultOf(error: unknown): Fault {
  const message = error instanceof Error ? error.message : String(error)
  return { code: error instanceof CairnError ? error.code : codeOf(error), message }
}
