/**
 * The master keeps consensus' configuration in step with the register of metadata servers, one step at a time:
 *
 *     mds.add ── connected ── learner ── caught up ── voter ── leaving ── out of the configuration ── removed
 *
 * A new member is taken in once it is there, and votes once it holds nearly all of the log. One that leaves is
 * refused while the rest could not decide without it, and hands mastership over first when it is the master.
 * The feature level is raised when all members have announced more than is in force; who understands less than
 * that is not taken in.
 */
import { formatAddress } from '../../platform/network.ts'
import type { ConfigurationChange, MemberId } from '../../raft/index.ts'
import type { Master } from '../control/servers/master.ts'
import { wireError } from '../errors.ts'
import { BASE_LEVEL } from '../state/feature-levels.ts'
import { fieldLevels } from '../state/feature-levels.ts'
import { type CommandResult, valueOf } from '../state/result.ts'
import type { EventSeverity, MemberState } from '../state/rows.ts'
import { TICK_MS } from './driver.ts'
import { LAG_COUNT } from './members-view.ts'
import type { RaftLog } from './raft-log.ts'
import { successorOf } from './successor.ts'
import type { MemberPlace } from './transport.ts'

const STEP_MS = 250
/** Who has not answered for so long does not count as there. */
const PRESENT_MS = 1_000
const PRESENT_TICKS = PRESENT_MS / TICK_MS
const LISTENS_LEVEL = fieldLevels['mds.member'].listens
/** An answer may have been on its way when its sender stopped. */
const IN_FLIGHT_TICKS = 2
/** Who was never there is out after two steps. */
const GIVE_UP_MS_MAX = 5_000

export interface FormationParts {
  readonly master: Master
  readonly log: RaftLog
  /** Where this member is. */
  readonly place: MemberPlace
  /** The feature level that a member announced; null when there is no connection to it. */
  readonly levelOf: (member: MemberId) => number | null
  /** `subject`: what is not said again soon. */
  readonly event: (severity: EventSeverity, code: string, message: string, subject?: string) => void
}

export class Formation {
  readonly #parts: FormationParts
  /** Told once in a mastership; bounded by the ids of members. */
  readonly #tooOld = new Set<MemberId>()

  constructor(parts: FormationParts) {
    this.#parts = parts
  }

  start(): void {
    this.#maybeRaiseLevel()
    this.found(this.#parts.log.member, this.#parts.place)
    this.#parts.master.every(STEP_MS, () => this.#step())
  }

  /** An id for a new member, which is taken in when it shows up. */
  async add(
    host: string,
    port: number,
    name: string,
    level = BASE_LEVEL,
  ): Promise<{ readonly member: MemberId }> {
    const { inForce } = this.#parts.log.level
    if (level < inForce)
      throw wireError('FEATURE_LEVEL', `the new metadata server understands ${levels(level, inForce)}`)
    await this.#maybeGiveUpUnused(host, port, name)
    const result = await this.#parts.log.propose({ type: 'mds.add', host, port, name })
    const { member } = valueOf(result as CommandResult<{ member: number }>)
    return { member }
  }

  /**
   * The same host asks for the same address again: its command was interrupted, or did not hear the answer. The
   * id that nobody has used yet is given up, never given again: two directories under one id would have two
   * votes (rule L4).
   */
  async #maybeGiveUpUnused(host: string, port: number, name: string): Promise<void> {
    const { master, log, levelOf } = this.#parts
    const { configuration, hasPendingConfiguration } = log.status
    const row = master.state.members
      .values()
      .find((other) => !isOut(other.state) && other.host === host && other.port === port)
    if (row === undefined || row.name !== name || hasPendingConfiguration) return
    const { member } = row
    const isUsed = configuration.voters.includes(member) || configuration.learners.includes(member)
    if (isUsed || levelOf(member) !== null) return
    if (row.state === 'member') valueOf(await log.propose({ type: 'mds.state', member, state: 'leaving' }))
    const endMs = master.clock.bootMs() + GIVE_UP_MS_MAX
    while (!this.isGone(member) && master.clock.bootMs() < endMs) await this.#tick()
  }

  async #tick(): Promise<void> {
    const { master } = this.#parts
    await new Promise<void>((resolve) => void master.clock.setTimer(TICK_MS, resolve))
    if (master.isStopped) throw wireError('NOT_MASTER', 'this metadata server is not the master any more')
  }

  /** Takes a member out, in the background. Throws REFUSED, NOT_FOUND; TRY_AGAIN when another must be master first. */
  async remove(member: MemberId): Promise<void> {
    const { log, master } = this.#parts
    const row = master.state.members.get(member)
    if (row === undefined || row.state === 'removed')
      throw wireError('NOT_FOUND', `there is no MDS#${member}`)
    if (row.state === 'replaced') {
      valueOf(await log.propose({ type: 'mds.state', member, state: 'removed' }))
      return
    }
    await this.#refuseLossOfMajority(member)
    if (member === log.member) {
      const best = successorOf(log.status, () => true)
      if (best === null) throw this.#onlyOne(member)
      log.transferLeader(best)
      throw wireError('TRY_AGAIN', `MDS#${member} is the master; MDS#${best} takes over`)
    }
    // Asked again: it is on its way out.
    if (row.state === 'leaving') return
    valueOf(await log.propose({ type: 'mds.state', member, state: 'leaving' }))
    this.#parts.event('info', 'MDS_LEAVING', `MDS#${member} is being removed`)
  }

  /** A member says where it is: everybody should know it. It may have moved, which changes nothing else. */
  found(member: MemberId, { address, name }: MemberPlace): void {
    const { master, log } = this.#parts
    const row = master.state.members.get(member)
    // Only who founded the cluster has no row before it says where it is.
    if (row === undefined ? member !== log.member : row.state !== 'member') return
    const { host, port } = address
    if (row?.host === host && row.port === port && row.name === name) return
    const listens = log.level.inForce >= LISTENS_LEVEL ? ({ listens: true } as const) : {}
    master.submit({ type: 'mds.member', member, host, port, name, ...listens }, () => {
      if (row === undefined || (row.host === host && row.port === port)) return
      const message = `MDS#${member} moved from ${formatAddress(row)} to ${formatAddress(address)}`
      this.#parts.event('info', 'MDS_MOVED', message, `${member} ${formatAddress(address)}`)
    })
  }

  /** Is it out of everything? */
  isGone(member: MemberId): boolean {
    return this.#parts.master.state.members.get(member)?.state === 'removed'
  }

  /**
   * Throws REFUSED unless a majority of those that are left answers from now on: who was heard of a moment ago
   * may have stopped since.
   */
  async #refuseLossOfMajority(member: MemberId): Promise<void> {
    const { master, log } = this.#parts
    const { voters } = log.configuration
    if (!voters.includes(member)) return
    const rest = voters.filter((voter) => voter !== member)
    if (rest.length === 0) throw this.#onlyOne(member)
    const sinceMs = master.clock.bootMs()
    let present: MemberId[] = []
    for (;;) {
      const waitedMs = master.clock.bootMs() - sinceMs
      present = this.#present(rest, Math.floor(waitedMs / TICK_MS) - IN_FLIGHT_TICKS)
      if (present.length * 2 > rest.length) return
      if (waitedMs > PRESENT_MS) break
      await this.#tick()
    }
    const absent = rest.filter((voter) => !present.includes(voter))
    throw wireError(
      'REFUSED',
      `without MDS#${member} only ${present.length} of ${rest.length} metadata servers would be there: no majority`,
      `start MDS#${absent.join(', MDS#')} again, or remove that first: cairn rm-mds ${absent[0]}`,
    )
  }

  /** Who is connected, holds nearly all of the log, and has been heard of within so many ticks. */
  #present(members: readonly MemberId[], silentTicksMax: number): MemberId[] {
    const { id, commitIndex, members: progresses } = this.#parts.log.status
    const isPresent = (member: MemberId): boolean => {
      if (member === id) return true
      const progress = progresses.find((other) => other.member === member)
      return (
        progress !== undefined &&
        progress.silentTicks <= silentTicksMax &&
        commitIndex - progress.matchIndex <= LAG_COUNT &&
        this.#parts.levelOf(member) !== null
      )
    }
    return members.filter(isPresent)
  }

  #onlyOne(member: MemberId): Error {
    return wireError(
      'REFUSED',
      `MDS#${member} is the only metadata server`,
      'make another one first (cairn make-mds); to give up the whole cluster stop its processes and delete their directories',
    )
  }

  /** The next change of the configuration, if one is due. Consensus takes one at a time. */
  #step(): void {
    const { master, log } = this.#parts
    if (!log.isReady || this.#maybeRaiseLevel()) return
    const { configuration, hasPendingConfiguration } = log.status
    if (hasPendingConfiguration) return
    const isMember = (member: MemberId) =>
      configuration.voters.includes(member) || configuration.learners.includes(member)
    for (const { member, state } of master.state.members.values()) {
      if (state === 'leaving' && !isMember(member)) {
        master.submit({ type: 'mds.state', member, state: 'removed' })
        this.#parts.event('info', 'MDS_REMOVED', `MDS#${member} is removed`)
        return
      }
      if (state === 'leaving' && this.#mayLeave(member) && this.#propose({ type: 'remove', member })) return
      if (state !== 'member') continue
      if (!isMember(member) && this.#mayJoin(member) && this.#propose({ type: 'add-learner', member })) {
        this.#parts.event('info', 'MDS_JOINED', `MDS#${member} is being brought up to date`)
        return
      }
      if (!configuration.learners.includes(member)) continue
      // With its vote it counts for a majority: it must be there.
      if (this.#present([member], PRESENT_TICKS).length === 0) continue
      if (this.#propose({ type: 'promote', member })) {
        this.#parts.event('info', 'MDS_VOTES', `MDS#${member} is up to date and votes`)
        return
      }
    }
  }

  /** Somebody may have stopped since it was asked for. */
  #mayLeave(member: MemberId): boolean {
    const { log } = this.#parts
    const { voters } = log.configuration
    if (member === log.member) return false
    if (!voters.includes(member)) return true
    const rest = voters.filter((voter) => voter !== member)
    return this.#present(rest, PRESENT_TICKS).length * 2 > rest.length
  }

  /** One that does not understand what is in the log would stop at it: it is not even a learner. */
  #mayJoin(member: MemberId): boolean {
    const { levelOf, log, event } = this.#parts
    const level = levelOf(member)
    if (level === null) return false
    const { inForce } = log.level
    if (level >= inForce) return true
    if (!this.#tooOld.has(member))
      event('warn', 'MDS_TOO_OLD', `MDS#${member} cannot join: it understands ${levels(level, inForce)}`)
    this.#tooOld.add(member)
    return false
  }

  /** True while it is on its way: nobody is taken in meanwhile. */
  #maybeRaiseLevel(): boolean {
    const { log, master, event } = this.#parts
    const { inForce, attainable } = log.level
    if (attainable <= inForce || log.status.hasPendingConfiguration) return false
    master.submit({ type: 'level.raise', level: attainable }, () => {
      event('info', 'FEATURE_LEVEL', `feature level ${attainable} is in force`)
    })
    return true
  }

  /** False when it is not time for it yet. */
  #propose(change: ConfigurationChange): boolean {
    return this.#parts.log.proposeConfiguration(change).ok
  }
}

function isOut(state: MemberState): boolean {
  return state === 'removed' || state === 'replaced'
}

function levels(understood: number, inForce: number): string {
  return `feature level ${understood} at most, in force is ${inForce}: install the version of the others`
}
