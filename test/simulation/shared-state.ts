/** What the workloads of one run share: the oracle, the names, and when to stop. */
import type { Clock } from '../../core/platform/clock.ts'
import type { NamespaceModel } from './namespace-model.ts'
import type { Oracle } from './oracle.ts'

/** Errors that the faults of a run excuse; null: this one is a violation. */
export type Excuse = (code: string, during: string) => string | null

export interface SharedState {
  readonly oracle: Oracle
  readonly clock: Clock
  readonly names: NamespaceModel
  readonly excuse: Excuse
  readonly counts: Map<string, number>
  readonly fileNames: readonly string[]
  readonly loopCount: number
  readonly thinkMs: number
  /** Of all steps: what is done with snapshots. */
  readonly snapshotPercent: number
  /** The loops think longer or shorter to come near to that many checked operations within that time. */
  readonly operationsWanted: { readonly count: number; readonly withinMs: number }
  /** No new operations. */
  isStopping: boolean
}
