/**
 * Says in the event log when a metadata server falls silent, falls behind or is copied anew, and when that is
 * over: each once. Of the master only. Texts and severities of those of the guide are the guide's ("Exploring
 * Basic Events"): a round is an entry of the log, a commit the answer that one is durable.
 */
import { formatAddress } from '../../platform/network.ts'
import type { MemberId, RaftStatus } from '../../raft/index.ts'
import type { EventSystem } from '../control/servers/event-recorder.ts'
import type { Master } from '../control/servers/master.ts'
import type { EventSeverity } from '../state/rows.ts'
import { LAG_COUNT, type MembersView } from './members-view.ts'

const STEP_MS = 1_000
/** A new master gives everybody time to answer. */
const FIRST_MS = 5_000
/** Entries that wait so long for the answer of a member are worth an event. */
const STALLED_MS = 10_000
const LAG_LOOKS = 2

type Progress = RaftStatus['members'][number]

export interface MemberWatchParts {
  readonly master: Master
  readonly members: MembersView
  readonly status: () => RaftStatus
  readonly event: (system: EventSystem, severity: EventSeverity, code: string, message: string) => void
}

/** What was said of a member and is not over yet; when it accepted something last. */
interface Watched {
  isSilent: boolean
  isLagging: boolean
  /** Looks in a row at which it was behind: a burst of commits is no lag. */
  lagLookCount: number
  isStalled: boolean
  isCopied: boolean
  isCopyFailing: boolean
  matchIndex: number
  acceptedMs: number
}

export class MemberWatch {
  readonly #parts: MemberWatchParts
  readonly #watched = new Map<MemberId, Watched>()

  constructor(parts: MemberWatchParts) {
    this.#parts = parts
  }

  start(): void {
    const { master, members } = this.#parts
    master.every(STEP_MS, () => members.sample())
    master.after(FIRST_MS, () => master.every(STEP_MS, () => this.#look()))
  }

  /** The member lacks more than the log holds: a copy of the whole state goes to it. */
  fullResync(member: MemberId): void {
    const watched = this.#of(member)
    if (watched.isCopied) return
    watched.isCopied = true
    const isNew = this.#parts.status().configuration.learners.includes(member)
    if (isNew) this.#say('MDS', 'info', 'MDS_COPIED', member, 'gets a copy of the metadata')
    else this.#say('JRN', 'err', 'MDS_RESYNC', member, 'state is outdated and will do a full resync')
  }

  /** Said once until the member has its copy: attempts repeat, every one of them late and large. */
  copyFailed(member: MemberId, reason: string): void {
    const watched = this.#of(member)
    if (watched.isCopyFailing) return
    watched.isCopyFailing = true
    const what = `could not be sent a copy of the metadata, which is tried again: ${reason}`
    this.#say('JRN', 'err', 'MDS_NOT_COPIED', member, what)
  }

  #look(): void {
    const { commitIndex, members: progresses } = this.#parts.status()
    const present = this.#parts.members.list()
    for (const id of this.#watched.keys())
      if (!present.some((member) => member.id === id)) this.#watched.delete(id)
    for (const { id, status, master } of present) {
      const progress = progresses.find(({ member }) => member === id)
      if (master || progress === undefined) continue
      const watched = this.#of(id)
      this.#lookForSilence(id, watched, status === 'inactive')
      this.#lookForLag(id, watched, progress, commitIndex)
    }
  }

  #lookForSilence(id: MemberId, watched: Watched, isSilent: boolean): void {
    if (isSilent === watched.isSilent) return
    watched.isSilent = isSilent
    if (isSilent) this.#say('MDS', 'warn', 'MDS_INACTIVE', id, 'does not answer')
    else this.#say('MDS', 'info', 'MDS_ACTIVE', id, 'answers again')
  }

  #lookForLag(id: MemberId, watched: Watched, { matchIndex, state }: Progress, commitIndex: number): void {
    const nowMs = this.#parts.master.clock.nowMs()
    const lag = commitIndex - matchIndex
    if (lag <= 0 || matchIndex > watched.matchIndex) watched.acceptedMs = nowMs
    watched.matchIndex = Math.max(matchIndex, watched.matchIndex)
    if (watched.isCopied && state !== 'snapshot' && lag <= LAG_COUNT && matchIndex > 0) {
      watched.isCopied = false
      watched.isCopyFailing = false
      this.#say('JRN', 'info', 'MDS_RESYNCED', id, 'has finished its full resync')
    }
    // What a copy makes good is not told twice.
    if (watched.isCopied) return
    watched.lagLookCount = lag > LAG_COUNT ? watched.lagLookCount + 1 : 0
    if (watched.lagLookCount >= LAG_LOOKS && !watched.isLagging) {
      watched.isLagging = true
      this.#say('JRN', 'err', 'MDS_LAGS', id, `lags behind for more than ${LAG_COUNT} rounds`)
    }
    const stalledMs = nowMs - watched.acceptedMs
    if (stalledMs >= STALLED_MS && !watched.isStalled) {
      watched.isStalled = true
      const seconds = Math.floor(stalledMs / 1_000)
      this.#say('JRN', 'err', 'MDS_STALLED', id, `didn't accept commits for ${seconds} sec`)
    }
    if (lag > LAG_COUNT / 2 || stalledMs > 0 || !(watched.isLagging || watched.isStalled)) return
    watched.isLagging = false
    watched.isStalled = false
    this.#say('JRN', 'info', 'MDS_LEVEL', id, 'has caught up')
  }

  #of(member: MemberId): Watched {
    const known = this.#watched.get(member)
    if (known !== undefined) return known
    const none = { isSilent: false, isLagging: false, lagLookCount: 0, isStalled: false }
    const copy = { isCopied: false, isCopyFailing: false }
    const watched = { ...none, ...copy, matchIndex: 0, acceptedMs: this.#parts.master.clock.nowMs() }
    this.#watched.set(member, watched)
    return watched
  }

  #say(system: EventSystem, severity: EventSeverity, code: string, id: MemberId, what: string): void {
    const row = this.#parts.master.state.members.get(id)
    const where = row === undefined ? '' : ` (${formatAddress(row)})`
    this.#parts.event(system, severity, code, `MDS#${id}${where} ${what}`)
  }
}
