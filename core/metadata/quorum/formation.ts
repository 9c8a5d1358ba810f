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
import type { Address } from '../../platform/network.ts'
import type { ConfigurationChange, MemberId } from '../../raft/index.ts'
import type { Master } from '../control/master.ts'
import { wireError } from '../errors.ts'
import { BASE_LEVEL } from '../state/feature-levels.ts'
import { type CommandResult, valueOf } from '../state/result.ts'
import type { EventSeverity } from '../state/rows.ts'
import { TICK_MS } from './driver.ts'
import type { RaftLog } from './raft-log.ts'

const STEP_MS = 250
/** A voter that has not answered for so long does not count as there. */
const SILENT_TICKS = 1_000 / TICK_MS

export interface FormationParts {
  readonly master: Master
  readonly log: RaftLog
  readonly address: Address
  readonly hostName: string
  /** The feature level that a member announced; null when there is no connection to it. */
  readonly levelOf: (member: MemberId) => number | null
  readonly event: (severity: EventSeverity, code: string, message: string) => void
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
    this.#registerSelf()
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
    const result = await this.#parts.log.propose({ type: 'mds.add', host, port, name })
    const { member } = valueOf(result as CommandResult<{ member: number }>)
    return { member }
  }

  /** Takes a member out, in the background. Throws REFUSED, NOT_FOUND; TRY_AGAIN when another must be master first. */
  async remove(member: MemberId): Promise<void> {
    const { log, master } = this.#parts
    const row = master.state.members.get(member)
    if (row === undefined || row.state === 'removed')
      throw wireError('NOT_FOUND', `there is no MDS#${member}`)
    this.#refuseLossOfMajority(member)
    if (member === log.member) {
      const { members, configuration } = log.status
      const best = members
        .filter((other) => configuration.voters.includes(other.member))
        .toSorted((a, b) => b.matchIndex - a.matchIndex)[0]
      if (best === undefined) throw wireError('REFUSED', 'this is the only metadata server')
      log.transferLeader(best.member)
      throw wireError('TRY_AGAIN', `MDS#${member} is the master; MDS#${best.member} takes over`)
    }
    // Asked again: it is on its way out.
    if (row.state === 'leaving') return
    valueOf(await log.propose({ type: 'mds.state', member, state: 'leaving' }))
    this.#parts.event('info', 'MDS_LEAVING', `MDS#${member} is being removed`)
  }

  /** Is it out of everything? */
  isGone(member: MemberId): boolean {
    return this.#parts.master.state.members.get(member)?.state === 'removed'
  }

  #refuseLossOfMajority(member: MemberId): void {
    const { id, configuration, members } = this.#parts.log.status
    const rest = configuration.voters.filter((voter) => voter !== member)
    if (!configuration.voters.includes(member)) return
    if (rest.length === 0) throw wireError('REFUSED', `MDS#${member} is the only metadata server`)
    const silentTicksOf = new Map(members.map((other) => [other.member, other.silentTicks]))
    const present = rest.filter(
      (voter) => voter === id || (silentTicksOf.get(voter) ?? SILENT_TICKS) < SILENT_TICKS,
    )
    if (present.length * 2 <= rest.length)
      throw wireError(
        'REFUSED',
        `without MDS#${member} only ${present.length} of ${rest.length} metadata servers would be there: no majority`,
      )
  }

  /** Where this member is, as everybody should know it. */
  #registerSelf(): void {
    const { master, log, address, hostName } = this.#parts
    const row = master.state.members.get(log.member)
    if (row !== undefined && row.host === address.host && row.port === address.port && row.name === hostName)
      return
    const { host, port } = address
    master.submit({ type: 'mds.member', member: log.member, host, port, name: hostName })
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
      if (state === 'leaving' && member !== log.member && this.#propose({ type: 'remove', member })) return
      if (state !== 'member') continue
      if (!isMember(member) && this.#mayJoin(member) && this.#propose({ type: 'add-learner', member })) {
        this.#parts.event('info', 'MDS_JOINED', `MDS#${member} is being brought up to date`)
        return
      }
      if (configuration.learners.includes(member) && this.#propose({ type: 'promote', member })) {
        this.#parts.event('info', 'MDS_VOTES', `MDS#${member} is up to date and votes`)
        return
      }
    }
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

function levels(understood: number, inForce: number): string {
  return `feature level ${understood} at most, in force is ${inForce}: install the version of the others`
}
