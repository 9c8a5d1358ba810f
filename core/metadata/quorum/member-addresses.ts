/**
 * Where to look for the other members: what the register says, and beside it what an administrator said while
 * the cluster was stopped (`configure-mds -n`). The second is a hint that the register is behind: it is looked
 * at as well until the register says the same, which it does once the members have met there. Who answers
 * proves by its member id that it is the one looked for (transport.ts).
 */
import { addressKey } from '../../discovery/metadata-servers.ts'
import type { Address } from '../../platform/network.ts'
import type { MemberId } from '../../raft/index.ts'
import { decodeLogEntry } from '../log/codec.ts'
import type { MemberRow } from '../state/rows.ts'
import type { Recovered } from './recovery.ts'

export interface RegisteredMember extends Address {
  readonly member: MemberId
}

/** Read at once. */
const ENTRIES_BYTES = 1024 * 1024
/** Nobody has that many members. */
const HEARD_MAX = 64

export class MemberAddresses {
  readonly #hints: Map<MemberId, Address>
  readonly #onSettled: () => void
  readonly #onHeard: () => void
  /** From other members; `known`: what the register said here at that time. */
  readonly #heard = new Map<MemberId, { readonly address: Address; known: string | null }>()

  /** `onSettled`: the hints are of no more use. Not called when there are none. */
  constructor(hints: ReadonlyMap<MemberId, Address>, onSettled: () => void, onHeard: () => void) {
    this.#hints = new Map(hints)
    this.#onSettled = onSettled
    this.#onHeard = onHeard
  }

  /** Another member's register says so, or entries of the own log that are not known to be committed. */
  heard(members: readonly RegisteredMember[]): void {
    for (const { member, host, port } of members)
      if (this.#heard.size < HEARD_MAX || this.#heard.has(member))
        this.#heard.set(member, { address: { host, port }, known: null })
    this.#onHeard()
  }

  /** Of all that are members or on their way out, but `own`; and of those that were replaced. */
  others(rows: Iterable<MemberRow>, own: MemberId): Map<MemberId, readonly Address[]> {
    const addresses = new Map<MemberId, readonly Address[]>()
    const unknown = new Map(this.#heard)
    const replaced: MemberRow[] = []
    const taken = new Set<string>()
    for (const row of rows) {
      if (row.state === 'replaced') replaced.push(row)
      else if (row.state !== 'removed') taken.add(addressKey(row))
      unknown.delete(row.member)
      this.#add(addresses, row, own)
    }
    // They are told so, if they are still there.
    for (const { member, host, port } of replaced)
      if (!taken.has(addressKey({ host, port }))) addresses.set(member, [{ host, port }])
    // Their rows are in entries that are not known to be committed here.
    for (const [member, { address }] of unknown) if (member !== own) addresses.set(member, [address])
    return addresses
  }

  #add(addresses: Map<MemberId, readonly Address[]>, row: MemberRow, own: MemberId): void {
    const { member, host, port, state } = row
    const known = { host, port }
    const hint = this.#hints.get(member)
    const isGone = state === 'removed' || state === 'replaced'
    const isSettled = hint !== undefined && (isGone || addressKey(hint) === addressKey(known))
    if (isSettled) this.#settle(member)
    if (member === own || isGone) return
    const candidates = [isSettled ? undefined : hint, this.#heardOf(member, known), known]
    const byKey = new Map(candidates.flatMap((one) => (one === undefined ? [] : [[addressKey(one), one]])))
    addresses.set(member, [...byKey.values()])
  }

  /** Until the register here changes: then it is the newer word. */
  #heardOf(member: MemberId, known: Address): Address | undefined {
    const heard = this.#heard.get(member)
    if (heard === undefined) return undefined
    heard.known ??= addressKey(known)
    if (heard.known === addressKey(known)) return heard.address
    this.#heard.delete(member)
    return undefined
  }

  #settle(member: MemberId): void {
    this.#hints.delete(member)
    if (this.#hints.size === 0) this.#onSettled()
  }
}

/** Where members are, as a register says. */
export function registeredIn(rows: Iterable<MemberRow>): RegisteredMember[] {
  const members = [...rows].filter(({ state }) => state !== 'removed' && state !== 'replaced')
  return members.map(({ member, host, port }) => ({ member, host, port }))
}

/** What entries behind the applied ones say, of those that moved shortly before this member stopped. */
export function registeredInLog({ log, unappliedCount }: Recovered): RegisteredMember[] {
  const members: RegisteredMember[] = []
  const last = log.lastIndex()
  for (let from = Math.max(last - unappliedCount + 1, log.firstIndex()); from <= last; ) {
    const entries = log.entries(from, last, ENTRIES_BYTES)
    for (const { index, kind, data } of entries) {
      const command = kind === 'command' ? decodeLogEntry(data, index).command : null
      if (command?.type !== 'mds.member') continue
      const { member, host, port } = command
      members.push({ member, host, port })
    }
    from += Math.max(1, entries.length)
  }
  return members
}
