/**
 * DNS-SD records (RFC 6763) of announced metadata servers, and servers out of records that somebody sent. Pure.
 * Whatever arrives is a stranger's word: checked, bounded, and what is left out is said.
 *
 *   PTR  _cairn._tcp.local        -> demo-10-0-0-1-2510._cairn._tcp.local
 *   SRV  demo-10-0-0-1-2510…      -> cairn-10-0-0-1.local, base port
 *   TXT  demo-10-0-0-1-2510…      -> cluster=demo, uuid=…
 *   A    cairn-10-0-0-1.local     -> 10.0.0.1
 */
import { isIP } from 'node:net'
import type { Announcement, DiscoveredServer } from '@cairn/core/plugin'
import type { ResponseOutgoingPacket } from 'multicast-dns'

export type DnsRecord = ResponseOutgoingPacket['answers'][number]

export const SERVICE = '_cairn._tcp.local'
/** What tools ask for to learn which services there are (RFC 6763, section 9). */
export const SERVICES = '_services._dns-sd._udp.local'
const CLUSTER_NAME = /^[A-Za-z0-9_-]{1,63}$/
const UUID_LENGTH_MAX = 64
/** Of an instance's 63 bytes; the address takes the rest. */
const NAME_PART_LENGTH = 16
/** Seconds, as RFC 6762 section 10 recommends: names of hosts short, all else long. */
const HOST_TTL = 120
const OTHER_TTL = 4500
const SERVICES_MAX = 256
const ADDRESSES_PER_SERVICE_MAX = 8
const SKIPPED_MAX = 16
const PORT_MAX = 65_534

export interface FoundServer extends DiscoveredServer {
  readonly cluster: string
}

export interface Found {
  readonly servers: readonly FoundServer[]
  /** What was left out, and why. */
  readonly skipped: readonly string[]
}

/** All records of one metadata server that is reached at `address`. */
export function recordsOf(announcement: Announcement, address: string): readonly DnsRecord[] {
  const { cluster, clusterUuid, port } = announcement
  const dashed = address.replaceAll(/[.:]/g, '-')
  const instance = `${cluster.slice(0, NAME_PART_LENGTH)}-${dashed}-${port}.${SERVICE}`
  const target = `cairn-${dashed}.local`
  return [
    { type: 'PTR', name: SERVICE, ttl: OTHER_TTL, data: instance },
    {
      type: 'SRV',
      name: instance,
      ttl: HOST_TTL,
      flush: true,
      data: { priority: 0, weight: 0, port, target },
    },
    {
      type: 'TXT',
      name: instance,
      ttl: OTHER_TTL,
      flush: true,
      data: [`cluster=${cluster}`, `uuid=${clusterUuid}`],
    },
    { type: isIP(address) === 6 ? 'AAAA' : 'A', name: target, ttl: HOST_TTL, flush: true, data: address },
  ]
}

/** The answer that a question deserves; undefined when it is about something else. */
export function answerTo(
  question: { readonly name: string; readonly type: string },
  records: readonly DnsRecord[],
): { readonly answers: DnsRecord[]; readonly additionals: DnsRecord[] } | undefined {
  const name = question.name.toLowerCase()
  const isAsked = (record: DnsRecord): boolean =>
    record.name.toLowerCase() === name && (question.type === 'ANY' || question.type === record.type)
  if (name === SERVICES && records.length > 0 && (question.type === 'PTR' || question.type === 'ANY'))
    return { answers: [{ type: 'PTR', name: SERVICES, ttl: OTHER_TTL, data: SERVICE }], additionals: [] }
  const answers = records.filter(isAsked)
  if (answers.length === 0) return undefined
  return { answers, additionals: records.filter((record) => !isAsked(record)) }
}

/** The same records, telling everybody to forget them (RFC 6762, section 10.1). */
export function goodbyeOf(records: readonly DnsRecord[]): DnsRecord[] {
  return records.map((record) => ({ ...record, ttl: 0 }))
}

/** Servers for which PTR, SRV, TXT and address records have come. */
export function serversIn(records: readonly DnsRecord[]): Found {
  const servers: FoundServer[] = []
  const skipped: string[] = []
  const skip = (reason: string): void => {
    if (skipped.length < SKIPPED_MAX) skipped.push(reason)
  }
  const instances = instancesIn(records)
  if (instances.length > SERVICES_MAX)
    skip(`${instances.length - SERVICES_MAX} of ${instances.length} services`)
  const byName = Map.groupBy(records, (record) => record.name.toLowerCase())
  for (const instance of instances.slice(0, SERVICES_MAX)) {
    const own = byName.get(instance) ?? []
    const texts = textsOf(own)
    const service = own.find((record) => record.type === 'SRV')
    if (texts === undefined || service === undefined) continue
    const shown = JSON.stringify(instance.slice(0, 80))
    const cluster = texts.get('cluster') ?? ''
    const { port, target, priority = 0, weight = 0 } = service.data
    if (!CLUSTER_NAME.test(cluster)) skip(`${shown}: it names no cluster`)
    else if (port < 1 || port > PORT_MAX) skip(`${shown}: port ${port} cannot be a base port`)
    else {
      const addresses = (byName.get(target.toLowerCase()) ?? []).flatMap(usableAddress)
      if (addresses.length === 0) skip(`${shown}: no address that can be used`)
      for (const host of addresses.slice(0, ADDRESSES_PER_SERVICE_MAX))
        servers.push({ cluster, host, port, priority, weight })
    }
  }
  return { servers, skipped }
}

/** What is still to be asked for: records without which a service is of no use. */
export function missingIn(
  records: readonly DnsRecord[],
): { name: string; type: 'SRV' | 'TXT' | 'A' | 'AAAA' }[] {
  const has = new Set(records.map((record) => `${record.type} ${record.name.toLowerCase()}`))
  const missing: { name: string; type: 'SRV' | 'TXT' | 'A' | 'AAAA' }[] = []
  for (const name of instancesIn(records).slice(0, SERVICES_MAX)) {
    for (const type of ['SRV', 'TXT'] as const) if (!has.has(`${type} ${name}`)) missing.push({ name, type })
  }
  for (const record of records) {
    if (record.type !== 'SRV' || missing.length >= SERVICES_MAX) continue
    const name = record.data.target.toLowerCase()
    if (!has.has(`A ${name}`) && !has.has(`AAAA ${name}`))
      missing.push({ name, type: 'A' }, { name, type: 'AAAA' })
  }
  return missing
}

function instancesIn(records: readonly DnsRecord[]): string[] {
  const instances = new Set<string>()
  for (const record of records) {
    if (record.type !== 'PTR' || record.name.toLowerCase() !== SERVICE) continue
    if (record.data.toLowerCase().endsWith(`.${SERVICE}`)) instances.add(record.data.toLowerCase())
  }
  return [...instances]
}

/** Keys and values of a TXT record; undefined when there is none. */
function textsOf(records: readonly DnsRecord[]): ReadonlyMap<string, string> | undefined {
  const record = records.find((one) => one.type === 'TXT')
  if (record?.type !== 'TXT') return undefined
  const texts = new Map<string, string>()
  for (const part of [record.data].flat()) {
    const [key = '', ...value] = String(part).split('=')
    // The first of several equal keys counts (RFC 6763, section 6.4).
    if (!texts.has(key)) texts.set(key, value.join('=').slice(0, UUID_LENGTH_MAX))
  }
  return texts
}

/** Link-local IPv6 addresses are of no use without the interface they belong to. */
function usableAddress(record: DnsRecord): string[] {
  if (record.type !== 'A' && record.type !== 'AAAA') return []
  if (isIP(record.data) === 0 || /^fe[89ab]/i.test(record.data)) return []
  return [record.data]
}
