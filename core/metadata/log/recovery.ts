/**
 * Start of a member from its store: rows, then the log entries behind them, applied. Nothing is served
 * meanwhile. Gaps, foreign formats and bytes that do not verify end the start with an error.
 */
import type { Store, StoredLogEntry } from '../../platform/store.ts'
import { metadataError } from '../errors.ts'
import type { AppliedMachine } from '../state/apply.ts'
import { STATE_FORMAT_VERSION } from '../state/state.ts'
import { decodeLogEntry } from './codec.ts'
import type { TrailingWindow } from './trailing-window.ts'

/** The one table that is not part of the replicated state. */
export const META_TABLE = 'meta'
export const FORMAT_KEY = 'format'
/** Rows lag the log by at most two batches; more entries than this behind them is damage. */
export const REPLAY_ENTRIES_MAX = 10_000

export interface Recovered {
  readonly lastIndex: number
  readonly lastTerm: number
  readonly replayedCount: number
  readonly rowCount: number
  /** False in a new store: the format row must be written with the first commit. */
  readonly hasFormat: boolean
}

export async function recover(
  store: Store,
  machine: AppliedMachine,
  window: TrailingWindow,
): Promise<Recovered> {
  let format: string | undefined
  let rowCount = 0
  let lastIndex = 0
  let lastTerm = 0
  // The applied index comes last, so the tail is kept until then.
  const tail: StoredLogEntry[] = []
  let head = 0
  const { appliedIndex } = await store.load({
    onRow(table, key, value) {
      if (table === META_TABLE) {
        if (key === FORMAT_KEY) format = value
        return
      }
      rowCount += 1
      machine.state.loadRow(table, key, value)
    },
    onEntry(entry) {
      if (lastIndex !== 0 && entry.index !== lastIndex + 1) {
        throw metadataError('LOG_CORRUPT', `entry ${entry.index} follows ${lastIndex}`)
      }
      lastIndex = entry.index
      lastTerm = entry.term
      window.add(entry.index, entry.data.length)
      tail.push(entry)
      if (tail.length - head > REPLAY_ENTRIES_MAX) head += 1
      if (head > REPLAY_ENTRIES_MAX) {
        tail.splice(0, head)
        head = 0
      }
    },
  })
  checkFormat(format, rowCount + lastIndex + appliedIndex > 0)
  machine.state.finishLoad()
  machine.startFrom(appliedIndex)
  const behind = tail.slice(head).filter((entry) => entry.index > appliedIndex)
  const first = behind[0]
  if (first !== undefined && first.index !== appliedIndex + 1) {
    throw metadataError('LOG_CORRUPT', `the rows end at ${appliedIndex}, the log continues at ${first.index}`)
  }
  for (const entry of behind) machine.apply(decodeLogEntry(entry.data, entry.index), entry.index)
  return {
    lastIndex: Math.max(lastIndex, appliedIndex),
    lastTerm,
    replayedCount: behind.length,
    rowCount,
    hasFormat: format !== undefined,
  }
}

function checkFormat(format: string | undefined, hasContent: boolean): void {
  if (format === undefined && !hasContent) return
  if (format !== String(STATE_FORMAT_VERSION)) {
    throw metadataError(
      'STATE_FORMAT',
      `found ${format ?? 'none'}, this version reads ${STATE_FORMAT_VERSION}`,
    )
  }
}
