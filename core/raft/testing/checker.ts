/**
 * The promises of consensus as checks over everything that all members do (paper, figure 3), fed by the
 * simulation at every step. It knows nothing of how members decide; it only compares what they show.
 */
import type { Entry, MemberId, Ready } from '../index.ts'
import type { Machine, Member } from './member.ts'

export type Property =
  | 'election safety'
  | 'log matching'
  | 'leader completeness'
  | 'state machine safety'
  | 'apply order'
  | 'lease read'
  | 'read index'
  | 'liveness'
  | 'member failed'

/** A broken promise. `property` says which. */
export class Violation extends Error {
  readonly property: Property

  constructor(property: Property, message: string) {
    super(`${property}: ${message}`)
    this.property = property
  }
}

interface LogRecord {
  readonly previousTerm: number
  readonly data: Buffer
}

export class Checker {
  /** The highest index that any member knew as committed: what a read must see from then on. */
  committedMax = 0
  readonly #leaderOfTerm = new Map<number, MemberId>()
  /** By index and term: what the entry is and what stands before it. Equal everywhere is log matching, by induction. */
  readonly #recordByPlace = new Map<string, LogRecord>()
  readonly #committedTerms: number[] = [0]
  readonly #digestByIndex: number[] = [0]
  readonly #checkedCommit = new Map<MemberId, number>()
  readonly #requiredByRead = new Map<number, number>()

  get leaderCount(): number {
    return this.#leaderOfTerm.size
  }

  /** After anything a member did. `mayAnswer` false: it is stopped and answers nobody. */
  afterStep(member: Member): void {
    const { node, id } = member
    if (node === null) return
    if (node.role === 'leader') this.#checkLeader(member)
    const checked = this.#checkedCommit.get(id) ?? 0
    if (node.commitIndex > checked) {
      for (let index = checked + 1; index <= node.commitIndex; index++)
        this.#checkCommitted(id, index, node.termOf(index))
      this.#checkedCommit.set(id, node.commitIndex)
      this.committedMax = Math.max(this.committedMax, node.commitIndex)
    }
  }

  /** A member that is running could answer a read right now: whoever has a lease must not be behind anybody. */
  checkLease(member: Member): boolean {
    const index = member.node?.leaseReadIndex() ?? null
    if (index !== null && index < this.committedMax)
      throw new Violation(
        'lease read',
        `member ${member.id} answers from ${index}, and ${this.committedMax} is committed`,
      )
    return index !== null
  }

  restarted(member: Member): void {
    this.#checkedCommit.delete(member.id)
  }

  readAsked(id: number): void {
    this.#requiredByRead.set(id, this.committedMax)
  }

  onReady(member: Member, ready: Ready): void {
    let previousTerm = 0
    for (const [position, entry] of ready.entries.entries()) {
      if (position === 0) previousTerm = this.#termBefore(member, entry)
      this.#checkEntry(member.id, entry, previousTerm)
      previousTerm = entry.term
    }
    for (const { id, index } of ready.reads) {
      const required = this.#requiredByRead.get(id) ?? 0
      if (index < required)
        throw new Violation(
          'read index',
          `member ${member.id} answers read ${id} from ${index}, not ${required}`,
        )
      this.#requiredByRead.delete(id)
    }
    for (const id of ready.readsLost) this.#requiredByRead.delete(id)
  }

  onApply(member: Member, entry: Entry, before: Machine, after: Machine): void {
    if (entry.index !== before.index + 1)
      throw new Violation('apply order', `member ${member.id} applies ${entry.index} behind ${before.index}`)
    const known = this.#digestByIndex[entry.index]
    if (known === undefined) this.#digestByIndex[entry.index] = after.digest
    else if (known !== after.digest)
      throw new Violation('state machine safety', `member ${member.id} differs at entry ${entry.index}`)
  }

  #checkLeader(member: Member): void {
    const node = member.node
    if (node === null) return
    const known = this.#leaderOfTerm.get(node.term)
    if (known === member.id) return
    if (known !== undefined)
      throw new Violation('election safety', `members ${known} and ${member.id} both lead term ${node.term}`)
    this.#leaderOfTerm.set(node.term, member.id)
    for (let index = 1; index < this.#committedTerms.length; index++) {
      const term = node.termOf(index)
      const isTrimmed = term === undefined && index <= member.machine.index
      if (!isTrimmed && term !== this.#committedTerms[index])
        throw new Violation(
          'leader completeness',
          `leader ${member.id} of term ${node.term} has term ${term} at ${index}, committed was ${this.#committedTerms[index]}`,
        )
    }
  }

  #checkCommitted(id: MemberId, index: number, term: number | undefined): void {
    if (term === undefined) return
    const known = this.#committedTerms[index]
    if (known === undefined) this.#committedTerms[index] = term
    else if (known !== term)
      throw new Violation(
        'state machine safety',
        `member ${id} has committed term ${term} at ${index}, others ${known}`,
      )
  }

  #termBefore(member: Member, entry: Entry): number {
    return member.node?.termOf(entry.index - 1) ?? -1
  }

  #checkEntry(id: MemberId, entry: Entry, previousTerm: number): void {
    const place = `${entry.index} ${entry.term}`
    const known = this.#recordByPlace.get(place)
    if (known === undefined) {
      if (previousTerm >= 0) this.#recordByPlace.set(place, { previousTerm, data: entry.data })
    } else if (!known.data.equals(entry.data) || (previousTerm >= 0 && known.previousTerm !== previousTerm))
      throw new Violation(
        'log matching',
        `member ${id} differs at entry ${entry.index} of term ${entry.term}`,
      )
  }
}
