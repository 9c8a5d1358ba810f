/**
 * Questions to DNS servers: SRV and addresses of a cluster, TXT names, name servers of a zone. Node's resolver
 * (c-ares) underneath, with a deadline over each whole question. Never rejects: a failure is a report.
 */
import { promises as dns } from 'node:dns'
import { isIP } from 'node:net'
import type { Clock, DiscoveredServer, ListReport, ResolveReport } from '@cairn/core/plugin'
import { clusterOfServiceName, NameCollector, namesInTextRecords, quoted } from './names.ts'
import {
  DNS_PORT,
  domainsOf,
  type Endpoint,
  formatEndpoint,
  parseEndpoint,
  type Settings,
} from './settings.ts'
import { transferZone } from './zone-transfer.ts'

export const METHOD_SERVICES = 'DNS SRV records'
export const METHOD_TEXTS = 'DNS TXT records'
export const METHOD_TRANSFER = 'DNS zone transfer'
const RECORDS_MAX = 64
const ADDRESSES_PER_TARGET_MAX = 8
const TRANSFER_SERVERS_MAX = 4
const TRIES = 2
/** RFC 2782: the service is decidedly not offered here. */
const NO_TARGET = new Set(['', '.'])
const NO_SUCH_RECORD = new Set(['ENOTFOUND', 'ENODATA'])
const PROBLEMS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'no DNS server answers',
  ETIMEOUT: 'no DNS server answers in time',
  ECANCELLED: 'no DNS server answers in time',
  ESERVFAIL: 'the DNS server has failed',
  EREFUSED: 'the DNS server refuses to answer',
  EBADRESP: 'the answer of the DNS server cannot be decoded',
}

export class Lookup {
  readonly #settings: Settings
  readonly #clock: Clock

  constructor(settings: Settings, clock: Clock) {
    this.#settings = settings
    this.#clock = clock
  }

  /** Hook `discovery.resolve`. The first domain that has records wins, as with any search list. */
  async resolve(cluster: string): Promise<readonly ResolveReport[]> {
    const servers: DiscoveredServer[] = []
    const skipped: string[] = []
    const problem = await this.#inDomains(async (resolver, domain) => {
      const name = `${this.#settings.service}.${cluster}.${domain}`
      const records = await resolver.resolveSrv(name)
      if (records.length > RECORDS_MAX)
        skipped.push(`${records.length - RECORDS_MAX} of ${records.length} records`)
      await Promise.all(
        records.slice(0, RECORDS_MAX).map(async (record) => {
          if (NO_TARGET.has(record.name)) return
          const addresses = await addressesOf(resolver, record.name)
          if (addresses.length === 0) skipped.push(`${quoted(record.name)}: it has no address`)
          const { port, priority, weight } = record
          for (const host of addresses) servers.push({ host, port, priority, weight })
        }),
      )
      return servers.length > 0
    })
    return [report({ method: METHOD_SERVICES, servers }, servers.length > 0 ? undefined : problem, skipped)]
  }

  /** Hook `discovery.list`. Both ways at once; neither waits for the other. */
  async list(): Promise<readonly ListReport[]> {
    const reports = await Promise.all([
      this.#listByTexts(),
      ...(this.#settings.zone_transfer ? [this.#listByTransfer()] : []),
    ])
    return reports
  }

  async #listByTexts(): Promise<ListReport> {
    const records: string[][] = []
    let answerCount = 0
    const problem = await this.#inDomains(async (resolver, domain) => {
      const found = await resolver.resolveTxt(`${this.#settings.names_record}.${domain}`)
      answerCount += 1
      records.push(...found)
      return false
    })
    const { clusters, skipped } = namesInTextRecords(records)
    return this.#listReport(METHOD_TEXTS, clusters, answerCount > 0 ? undefined : problem, skipped)
  }

  async #listByTransfer(): Promise<ListReport> {
    const names = new NameCollector()
    let doneCount = 0
    const problems: string[] = []
    const problem = await this.#inDomains(async (resolver, domain, signal) => {
      for (const server of await this.#transferServers(resolver, domain)) {
        try {
          const add = (owner: string): void => {
            const cluster = clusterOfServiceName(owner, this.#settings.service, domain)
            if (cluster !== undefined) names.add(cluster)
          }
          await transferZone(server, domain, add, signal)
          doneCount += 1
          break
        } catch (error) {
          problems.push(
            `${formatEndpoint(server)}: ${error instanceof Error ? error.message : String(error)}`,
          )
        }
      }
      return false
    })
    const { clusters, skipped } = names.result()
    const why = problems.length > 0 ? problems.join('; ') : (problem ?? 'no server of the zone is known')
    return this.#listReport(METHOD_TRANSFER, clusters, doneCount > 0 ? undefined : why, skipped)
  }

  async #transferServers(resolver: dns.Resolver, domain: string): Promise<readonly Endpoint[]> {
    const { transfer_servers: given, resolvers } = this.#settings
    if (given.length > 0) return given.map((text) => parseEndpoint('transfer_servers', text))
    const servers = resolvers.map((text) => parseEndpoint('resolvers', text))
    const names = await resolver.resolveNs(domain).catch(() => [])
    for (const name of names.slice(0, TRANSFER_SERVERS_MAX)) {
      for (const host of await addressesOf(resolver, name)) servers.push({ host, port: DNS_PORT })
    }
    return servers.slice(0, TRANSFER_SERVERS_MAX)
  }

  #listReport(
    method: string,
    clusters: readonly string[],
    problem: string | undefined,
    skipped: readonly string[],
  ): ListReport {
    const { seconds, nanoseconds } = this.#clock.wall()
    const atMs = seconds * 1000 + Math.floor(nanoseconds / 1e6)
    return report({ method, clusters, atMs }, problem, skipped)
  }

  /**
   * Asks domain by domain until `ask` says it is enough. Returns why there was no answer: the last failure, or
   * that there is no such record anywhere.
   */
  async #inDomains(
    ask: (resolver: dns.Resolver, domain: string, signal: AbortSignal) => Promise<boolean>,
  ): Promise<string | undefined> {
    const domains = await domainsOf(this.#settings)
    if (domains.length === 0)
      return 'no domain is known: set plugins.discovery-dns.domains, or search in resolv.conf'
    const { timeout, resolvers } = this.#settings
    const resolver = new dns.Resolver({
      timeout: Math.max(100, Math.floor(timeout / TRIES / 2)),
      tries: TRIES,
    })
    if (resolvers.length > 0)
      resolver.setServers(resolvers.map((text) => formatEndpoint(parseEndpoint('resolvers', text))))
    const deadline = new AbortController()
    const timer = this.#clock.setTimer(timeout, () => {
      deadline.abort()
      resolver.cancel()
    })
    let problem: string | undefined
    try {
      for (const domain of domains) {
        if (deadline.signal.aborted) return problem ?? PROBLEMS['ETIMEOUT']
        try {
          if (await ask(resolver, domain, deadline.signal)) return undefined
        } catch (error) {
          problem = problemOf(error, domain)
        }
      }
    } finally {
      timer.cancel()
    }
    return problem
  }
}

/** Addresses of a host, as the same servers know it. Empty when it has none. */
async function addressesOf(resolver: dns.Resolver, host: string): Promise<readonly string[]> {
  if (isIP(host) !== 0) return [host]
  const answers = await Promise.all([
    resolver.resolve4(host).catch(() => []),
    resolver.resolve6(host).catch(() => []),
  ])
  return answers.flat().slice(0, ADDRESSES_PER_TARGET_MAX)
}

function problemOf(error: unknown, domain: string): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  if (NO_SUCH_RECORD.has(code)) return `there is no such record in ${domain}`
  return PROBLEMS[code] ?? (error instanceof Error ? error.message : String(error))
}

function report<Fields extends object>(
  fields: Fields,
  problem: string | undefined,
  skipped: readonly string[],
): Fields & { readonly problem?: string; readonly skipped?: readonly string[] } {
  return {
    ...fields,
    ...(problem === undefined ? {} : { problem }),
    ...(skipped.length === 0 ? {} : { skipped }),
  }
}
