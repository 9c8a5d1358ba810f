/**
 * What the members of one chunk hold unflushed (rules F2, F5, F6): per member, joining ones included, the
 * incarnation of the writes, the host-crash count when they were answered, and whether it held every
 * covered write. Pure bookkeeping; the flusher asks, the writer tells.
 */
import type { Member } from '../../wire/messages/common.ts'

export interface Mark {
  /** Process that took the writes. */
  incarnation: number
  /** Host crashes of that store when the first covered write was answered. */
  crashes: number
  /** Epoch under which the first covered write was answered. */
  firstVersion: number
  /** Epoch of the last one. */
  lastVersion: number
  /** Number of the last covered answer. */
  lastNumber: number
  /** Its host crashed with covered writes on it. */
  lost: boolean
  /** In sync only since after the last covered write: it was reconciled after a restart, or else it had left. */
  mayHaveLeft: boolean
}

export class MemberMarks {
  readonly #marks = new Map<number, Mark>()
  /** Joined from a member that held everything, which the join has synced (rule F1): in sync since this version. */
  readonly #heirs = new Map<number, number>()
  #number = 0
  /** Epoch of the first acknowledged unflushed write; 0: nothing acknowledged is unflushed. */
  #dirtyVersion = 0
  /** Number of the answer that completed the last acknowledged write. */
  #acknowledgedNumber = 0
  /** Since this epoch the quorum cannot vouch for what was acknowledged before it; 0: it can. */
  #lossVersion = 0

  get isDirty(): boolean {
    return this.#dirtyVersion !== 0 || this.#marks.size > 0
  }

  /** Something that was acknowledged is unflushed. */
  get hasAcknowledged(): boolean {
    return this.#dirtyVersion !== 0
  }

  get number(): number {
    return this.#number
  }

  get(server: number): Mark | undefined {
    return this.#marks.get(server)
  }

  /** A member answered a write. */
  answered(server: number, version: number, incarnation: number, crashes: number): void {
    const number = ++this.#number
    const mark = this.#marks.get(server)
    if (mark === undefined) {
      this.#marks.set(server, {
        incarnation,
        crashes,
        firstVersion: version,
        lastVersion: version,
        lastNumber: number,
        lost: false,
        mayHaveLeft: false,
      })
      return
    }
    if (mark.incarnation !== incarnation && version > mark.lastVersion)
      this.restarted(mark, incarnation, crashes)
    mark.lastVersion = version
    mark.lastNumber = number
  }

  /** All members of the epoch have answered a write. */
  acknowledged(version: number): void {
    if (this.#dirtyVersion === 0) this.#dirtyVersion = version
    this.#acknowledgedNumber = this.#number
  }

  /** The quorum took a restarted server back under a later epoch: its writes count unless its host crashed. */
  restarted(mark: Mark, incarnation: number, crashes: number): void {
    mark.incarnation = incarnation
    if (crashes !== mark.crashes) mark.lost = true
    mark.mayHaveLeft = false
    mark.crashes = crashes
  }

  get #mayBeLost(): boolean {
    return this.#dirtyVersion !== 0 && this.#lossVersion > this.#dirtyVersion
  }

  /**
   * A new epoch. Who left holds nothing for us; who joins holds only what we send from now on, the rest
   * comes by the join and is synced before that ends (rule F1). We may have missed epochs: a member that is in
   * sync only since after our last write to it left and joined meanwhile, and has what its source had, if
   * another was in sync before it. If none was, all of them may have been reconciled where they were.
   */
  newEpoch(members: readonly Member[]): void {
    const first = Math.min(...members.map((member) => sinceOf(member)))
    for (const [server, mark] of this.#marks) {
      const member = members.find((candidate) => candidate.server === server)
      if (member === undefined || member.role === 'joining') this.#marks.delete(server)
      else if (member.since === undefined || member.since <= mark.lastVersion) continue
      else if (first < member.since) this.#marks.delete(server)
      else mark.mayHaveLeft = true
    }
  }

  /**
   * Who became in sync in the epoch `version`, or in one that we missed, holds what its source held, durably (rule
   * F1), and is a witness when the source has gone (rule F5). The source was in sync since before: no
   * reconciliation has chosen between its members meanwhile, and none of them had restarted uncleanly, for such
   * ones leave or start again. `lossVersion`: where the quorum had to go on from a crashed replica, which the members and
   * their restarts need not show.
   */
  located(members: readonly Member[], version: number, lossVersion = 0): void {
    this.#lossVersion = lossVersion
    if (this.#dirtyVersion === 0) return
    for (const [server, since] of this.#heirs) {
      if (!members.some((member) => member.server === server && isInSyncSince(member, since)))
        this.#heirs.delete(server)
    }
    const source = Math.min(...members.filter((member) => this.#hasAll(member)).map(sinceOf))
    for (const member of members) {
      const since = sinceOf(member)
      const isLate = since === version || since > this.#dirtyVersion
      if (isLate && source < since && since <= version) this.#heirs.set(member.server, since)
    }
  }

  /** As far as the quorum knows: it may have crashed just now. */
  #hasAll(member: Member): boolean {
    const { server, role } = member
    if (role !== 'in-sync') return false
    if (this.#heirs.has(server)) return true
    const mark = this.#marks.get(server)
    return (
      mark !== undefined &&
      !mark.lost &&
      !mark.mayHaveLeft &&
      sinceOf(member) <= mark.firstVersion &&
      mark.firstVersion <= this.#dirtyVersion
    )
  }

  /** A member that needs no flush holds everything: whatever we sent to it since it joined is durable. */
  get hasDurableHeir(): boolean {
    if (this.#mayBeLost) return false
    for (const server of this.#heirs.keys()) if (!this.#marks.has(server)) return true
    return false
  }

  /** Rule F5: held every covered write from its acknowledgement until now without a host crash. */
  heldEverything(server: number, role: string, incarnation: number, crashes: number): boolean {
    const mark = this.#marks.get(server)
    if (mark === undefined || role !== 'in-sync' || mark.lost || mark.mayHaveLeft) return false
    if (this.#mayBeLost) return false
    if (mark.incarnation !== incarnation || mark.crashes !== crashes) return false
    return this.#dirtyVersion === 0 || mark.firstVersion <= this.#dirtyVersion || this.#heirs.has(server)
  }

  /**
   * Everything answered up to `number` is durable (or given up) under `version`. `isAllAnswered`: no write
   * waits for some of its members.
   */
  flushed(number: number, version: number, isAllAnswered: boolean): void {
    let left = false
    for (const mark of this.#marks.values()) if (mark.lastNumber > number) left = true
    if (!left && isAllAnswered) return this.clear()
    // A write whose answers came partly before and partly after: who answered before and has synced stays a
    // witness for it, or the next flush would miss one (found by the random test).
    for (const mark of this.#marks.values()) {
      mark.firstVersion = version
      mark.mayHaveLeft = false
    }
    this.#heirs.clear()
    // A write that only some have answered since is not acknowledged: without it nothing can be lost.
    this.#dirtyVersion = this.#acknowledgedNumber > number ? version : 0
  }

  clear(): void {
    this.#marks.clear()
    this.#heirs.clear()
    this.#dirtyVersion = 0
  }
}

/** Infinity: it is not in sync, or nobody says since when. */
function sinceOf({ role, since = Number.POSITIVE_INFINITY }: Member): number {
  return role === 'in-sync' ? since : Number.POSITIVE_INFINITY
}

function isInSyncSince(member: Member, version: number): boolean {
  return member.role === 'in-sync' && member.since === version
}

/** The same members in the same places; roles may differ. */
export function sameServers(a: readonly Member[], b: readonly Member[]): boolean {
  return a.length === b.length && a.every((member, i) => member.server === b[i]?.server)
}
