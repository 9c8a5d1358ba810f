/** On which network interfaces of this host multicast is spoken, and what belongs to them. */
import { BlockList, isIP } from 'node:net'
import { networkInterfaces } from 'node:os'

export const INTERFACES_MAX = 16

export interface Interface {
  readonly name: string
  /** Its first IPv4 address: multicast DNS is spoken over IPv4. */
  readonly address: string
  /** All its addresses, IPv6 too. */
  readonly addresses: readonly string[]
  /** Does a packet from there come from this interface's own network? (RFC 6762, section 11) */
  isNeighbour(address: string): boolean
}

export interface Choice {
  readonly interfaces: readonly Interface[]
  /** Those named in the configuration that are not there. */
  readonly missing: readonly string[]
}

/** `wanted`: names or addresses; empty: all with IPv4 but loopback. */
export function chooseInterfaces(
  wanted: readonly string[],
  present: ReturnType<typeof networkInterfaces> = networkInterfaces(),
): Choice {
  const interfaces: Interface[] = []
  const found = new Set<string>()
  for (const [name, entries = []] of Object.entries(present)) {
    const own = entries.find((entry) => entry.family === 'IPv4')
    if (own === undefined) continue
    const addresses = entries.map((entry) => entry.address)
    const names = wanted.filter((one) => one === name || addresses.includes(one))
    if (wanted.length === 0 ? own.internal : names.length === 0) continue
    for (const one of names) found.add(one)
    const networks = new BlockList()
    for (const { cidr } of entries) {
      const [network = '', prefix = ''] = cidr?.split('/') ?? []
      if (isIP(network) !== 0)
        networks.addSubnet(network, Number(prefix), isIP(network) === 6 ? 'ipv6' : 'ipv4')
    }
    const isNeighbour = (address: string): boolean =>
      isIP(address) !== 0 && networks.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4')
    interfaces.push({ name, address: own.address, addresses, isNeighbour })
  }
  return {
    interfaces: interfaces.slice(0, INTERFACES_MAX),
    missing: wanted.filter((one) => !found.has(one)),
  }
}
