/**
 * Start of a member from its store: the rows become the state, the log entries become the window that
 * consensus works on. Nothing is applied: which entries behind the rows are committed is for Raft to say.
 * Gaps, foreign formats and bytes that do not verify end the start with an error.
 */
import type { HardStateFile, MemberHardState } from '../../platform/hard-state.ts'
import type { Store } from '../../platform/store.ts'
import { CairnError } from '../../base/errors.ts'
import { type Configuration, decodeConfiguration, emptyConfiguration, TrailingLog } from '../../raft/index.ts'
import { metadataError } from '../errors.ts'
import { decodeEntry } from '../log/codec.ts'
import type { AppliedMachine } from '../state/apply.ts'
import { FORMAT_KEY, META_TABLE, parseFormat } from '../state/feature-levels.ts'

/** The members as of the applied index: they travel with the rows. */
export const CONFIGURATION_KEY = 'configuration'
/** What founds a cluster, and what a store written before there were members belongs to. */
export const FIRST_MEMBER = 1
const FIRST_TERM = 1

export interface Recovered {
  readonly log: TrailingLog
  readonly rowCount: number
  /** Entries behind the rows: they are applied when Raft says that they are committed. */
  readonly unappliedCount: number
  /** Undefined in a store that has none: a new one, or one of the time before there were members. */
  readonly configuration: Configuration | undefined
  /** Nothing was ever written. */
  readonly isNew: boolean
}

/** `turn`: others get theirs in between; a large state takes many seconds. */
export async function recover(
  store: Store,
  machine: AppliedMachine,
  turn: () => Promise<void> = () => Promise.resolve(),
): Promise<Recovered> {
  // Of rows that this version does not understand nothing is looked at.
  const { rows: meta } = await store.glance(META_TABLE)
  const format = meta.get(FORMAT_KEY)
  if (format !== undefined) parseFormat(format)
  let rowCount = 0
  let log: TrailingLog | null = null
  const { appliedIndex } = await store.load({
    onRows(table, rows) {
      if (table !== META_TABLE) {
        rowCount += rows.count
        machine.state.loadRows(table, rows)
        return
      }
      while (rows.next()) {
        const key = rows.text()
        const value = rows.text()
        if (key === FORMAT_KEY) machine.state.loadRow(table, key, value)
      }
    },
    onEntry(stored) {
      // Of the first entry only index and term are needed, unless it is the first of all.
      if (log === null && stored.index > 1) {
        decodeEntry(stored)
        log = new TrailingLog(stored.index, stored.term)
        return
      }
      log ??= new TrailingLog()
      if (stored.index !== log.lastIndex() + 1)
        throw metadataError('LOG_CORRUPT', `entry ${stored.index} follows ${log.lastIndex()}`)
      log.append([decodeEntry(stored)])
    },
  })
  const found = (log as TrailingLog | null) ?? new TrailingLog()
  const lastIndex = found.lastIndex()
  const isNew = rowCount === 0 && lastIndex === 0 && appliedIndex === 0 && meta.size === 0
  if (!isNew) parseFormat(format)
  if (appliedIndex < found.firstIndex() - 1 || appliedIndex > lastIndex)
    throw metadataError(
      'LOG_CORRUPT',
      `the rows end at ${appliedIndex}, the log holds ${found.firstIndex() - 1} to ${lastIndex}`,
    )
  for (let slot = 0; slot >= 0; ) {
    slot = machine.state.finishLoadFrom(slot)
    await turn()
  }
  machine.startFrom(appliedIndex)
  const configuration = meta.get(CONFIGURATION_KEY)
  return {
    log: found,
    rowCount,
    unappliedCount: lastIndex - appliedIndex,
    configuration: configuration === undefined ? undefined : parseConfiguration(configuration),
    isNew,
  }
}

export interface Membership {
  readonly hardState: MemberHardState
  /** As of the applied index. */
  readonly configuration: Configuration
}

/**
 * Who this member is. A new store founds a cluster when `isFounder`, and otherwise belongs to a member that
 * was given an id and knows nobody yet. A store without members is of the time when there was one metadata
 * server, and goes on as a group of one. Afterwards the hard state is durable.
 */
export async function recoverMembership(
  recovered: Recovered,
  file: HardStateFile,
  isFounder: boolean,
): Promise<Membership> {
  const { log, isNew } = recovered
  const saved = await file.load()
  const isGroupOfOne = isFounder || (recovered.configuration === undefined && !isNew)
  if (saved === null && !isGroupOfOne)
    throw new CairnError('HARD_STATE_DAMAGED', 'the file with term and vote of this member is gone', {
      next: 'Build this member again from the others, under a new id: cairn make-mds --rebuild -r DIR.',
    })
  const lastTerm = log.term(log.lastIndex()) ?? 0
  const first = isNew
    ? { member: FIRST_MEMBER, term: 0, vote: 0 }
    : { member: FIRST_MEMBER, term: Math.max(FIRST_TERM, lastTerm), vote: FIRST_MEMBER }
  const hardState = saved ?? first
  // Also what was loaded: it may be a save that was cut short.
  await file.save(hardState)
  const alone: Configuration = { voters: [hardState.member], learners: [] }
  const byDefault = isGroupOfOne && hardState.member === FIRST_MEMBER ? alone : emptyConfiguration
  return { hardState, configuration: recovered.configuration ?? byDefault }
}

export function configurationText({ voters, learners }: Configuration): string {
  return JSON.stringify([voters, learners])
}

export function parseConfiguration(text: string): Configuration {
  try {
    return decodeConfiguration(Buffer.from(text))
  } catch (error) {
    throw metadataError('ROW_CORRUPT', `${META_TABLE}/${CONFIGURATION_KEY}`, error)
  }
}

/** How much of the log stays behind the applied rows (rule L10), in the store and in memory alike. */
export interface WindowLimits {
  readonly entriesMax: number
  readonly bytesMax: number
  /** Trimming in steps spares the store a range delete per commit. */
  readonly step: number
}

/** Both in memory and in the store: a member further behind gets the file. */
export const windowLimits: WindowLimits = { entriesMax: 16_384, bytesMax: 8 * 1024 * 1024, step: 1_000 }

/** The index through which the window may be cut now, never above `appliedIndex`; 0: not yet. */
export function trimThrough(log: TrailingLog, limits: WindowLimits, appliedIndex: number): number {
  const isOver = log.count - limits.entriesMax >= limits.step || log.sizeBytes > limits.bytesMax
  if (!isOver) return 0
  const through = log.excessThrough(limits.entriesMax, limits.bytesMax, appliedIndex)
  return through >= log.firstIndex() ? through : 0
}
