/**
 * Where to look for the other members: what the register says, and beside it what an administrator said while
 * the cluster was stopped (`configure-mds -n`). The second is a hint that the register is behind: it is looked
 * at as well until the register says the same, which it does once the members have met there. Who answers
 * proves by its member id that it is the one looked for (transport.ts).
 */
import { addressKey } from '../../discovery/metadata-servers.ts'
import type { Address } from '../../platform/network.ts'
import type { MemberId } from '../../raft/index.ts'
import type { MemberRow } from '../state/rows.ts'

export class MemberAddresses {
  readonly #hints: Map<MemberId, Address>
  readonly #onSettled: () => void

  /** `onSettled`: the hints are of no more use. Not called when there are none. */
  constructor(hints: ReadonlyMap<MemberId, Address>, onSettled: () => void) {
    this.#hints = new Map(hints)
    this.#onSettled = onSettled
  }

  /** Of all that are members or on their way out, but `own`; and of those that were replaced. */
  others(rows: Iterable<MemberRow>, own: MemberId): Map<MemberId, readonly Address[]> {
    const addresses = new Map<MemberId, readonly Address[]>()
    const replaced: MemberRow[] = []
    const taken = new Set<string>()
    for (const row of rows) {
      if (row.state === 'replaced') replaced.push(row)
      else if (row.state !== 'removed') taken.add(addressKey(row))
      this.#add(addresses, row, own)
    }
    // They are told so, if they are still there.
    for (const { member, host, port } of replaced)
      if (!taken.has(addressKey({ host, port }))) addresses.set(member, [{ host, port }])
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
    addresses.set(member, hint === undefined || isSettled ? [known] : [hint, known])
  }

  #settle(member: MemberId): void {
    this.#hints.delete(member)
    if (this.#hints.size === 0) this.#onSettled()
  }
}
