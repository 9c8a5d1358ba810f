/**
 * Where the metadata servers of a cluster are, as everybody who dials them sees it: a list, and a way to have
 * it made anew when nobody on it serves. The list is a hint; the handshake decides who belongs to the cluster.
 */
import type { Address } from '../platform/network.ts'

/** Longer lists are cut: nobody has that many metadata servers, so the rest is a mistake or an attack. */
export const SERVERS_MAX = 64

export interface MetadataServers {
  /** Base addresses, best first; empty while none is known. */
  list(): readonly Address[]
  /**
   * None of the list serves: ask everybody again. Resolves with the new list, in bounded time; never rejects.
   * Asked again too soon, it answers with what is known.
   */
  ask(): Promise<readonly Address[]>
  /** Why ways of looking failed the last time, for messages; empty when all worked. */
  problems(): readonly string[]
}

/** A list that never changes: `cairn up`, tests, programs that know their cluster. */
export function fixedServers(addresses: readonly Address[]): MetadataServers {
  return {
    list: () => addresses,
    ask: () => Promise.resolve(addresses),
    problems: () => [],
  }
}

export function asMetadataServers(servers: readonly Address[] | MetadataServers): MetadataServers {
  return isList(servers) ? fixedServers(servers) : servers
}

function isList(servers: readonly Address[] | MetadataServers): servers is readonly Address[] {
  return Array.isArray(servers)
}

/** Equal for equal addresses. */
export function addressKey(address: Address): string {
  return `${address.host.toLowerCase()} ${address.port}`
}
