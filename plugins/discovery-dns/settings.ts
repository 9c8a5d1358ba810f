/** Configuration of the plugin (`plugins.discovery-dns` in cairn.json), and what it becomes on this host. */
import { readFile } from 'node:fs/promises'
import { isIP } from 'node:net'
import type { ConfigOf, ConfigSchema } from '@cairn/core/plugin'
import { CairnError } from '@cairn/core/plugin'

export const DNS_PORT = 53
export const DOMAINS_MAX = 8
export const RESOLVERS_MAX = 8
/** Below the deadlines of the hooks. */
const TIMEOUT_MS_MIN = 100
const TIMEOUT_MS_MAX = 5000
const RESOLVER_FILE = '/etc/resolv.conf'
/** Underscores, because service names stand in front of domains. */
const DNS_NAME = /^(?=.{1,253}$)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*$/

export const configSchema = {
  domains: {
    doc: 'Domains whose zones name clusters and their metadata servers; empty: search and domain of resolv.conf',
    format: 'string[]',
    default: [],
  },
  resolvers: {
    doc: 'DNS servers to ask, IP or IP:PORT; empty: those of the host',
    format: 'string[]',
    default: [],
  },
  service: {
    doc: 'Service in front of the name of the cluster in SRV records',
    format: 'string',
    default: '_cairn._tcp',
  },
  names_record: {
    doc: 'TXT record with the names of the clusters',
    format: 'string',
    default: 'cairn_clusters',
  },
  zone_transfer: {
    doc: 'Also look for names of clusters by zone transfer (AXFR)',
    format: 'boolean',
    default: true,
  },
  transfer_servers: {
    doc: 'Servers to transfer the zones from, IP or IP:PORT; empty: the resolvers above, then those of the NS records',
    format: 'string[]',
    default: [],
  },
  timeout: { doc: 'How long one way of asking may take', format: 'duration', default: 4000 },
} as const satisfies ConfigSchema

export type Settings = ConfigOf<typeof configSchema>

export interface Endpoint {
  readonly host: string
  readonly port: number
}

/** Throws for people, naming the key. */
export function checkSettings(settings: Settings): void {
  for (const key of ['service', 'names_record'] as const) {
    if (!DNS_NAME.test(settings[key])) throw badKey(key, settings[key], 'a DNS name such as _cairn._tcp')
  }
  for (const domain of settings.domains) {
    if (!DNS_NAME.test(withoutDot(domain)))
      throw badKey('domains', domain, 'a domain such as storage.example.org')
  }
  if (settings.timeout < TIMEOUT_MS_MIN || settings.timeout > TIMEOUT_MS_MAX)
    throw badKey('timeout', `${settings.timeout} ms`, `${TIMEOUT_MS_MIN} ms to ${TIMEOUT_MS_MAX} ms`)
  if (settings.domains.length > DOMAINS_MAX)
    throw badKey('domains', String(settings.domains.length), `at most ${DOMAINS_MAX} domains`)
  for (const key of ['resolvers', 'transfer_servers'] as const) {
    for (const text of settings[key]) parseEndpoint(key, text)
    if (settings[key].length > RESOLVERS_MAX)
      throw badKey(key, String(settings[key].length), `at most ${RESOLVERS_MAX} servers`)
  }
}

/** "10.0.0.1", "10.0.0.1:5353", "fd00::1", "[fd00::1]:5353". Throws for people. */
export function parseEndpoint(key: string, text: string): Endpoint {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:]+))(?::(\d{1,5}))?$/.exec(text)
  const host = isIP(text) === 6 ? text : (match?.[1] ?? match?.[2] ?? '')
  const port = isIP(text) === 6 || match?.[3] === undefined ? DNS_PORT : Number(match[3])
  if (isIP(host) !== 0 && port >= 1 && port <= 65_535) return { host, port }
  throw badKey(key, text, 'IP or IP:PORT')
}

export function formatEndpoint({ host, port }: Endpoint): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

/** The domains to look in. Read anew at every question: resolv.conf changes with the network. */
export async function domainsOf(settings: Settings): Promise<readonly string[]> {
  if (settings.domains.length > 0) return settings.domains.map(withoutDot)
  return searchDomains(await readFile(RESOLVER_FILE, 'utf8').catch(() => ''))
}

/** resolv.conf(5): the last `search` or `domain` line wins. */
export function searchDomains(text: string): readonly string[] {
  let domains: readonly string[] = []
  for (const line of text.split('\n')) {
    const [keyword, ...words] = line.trim().split(/\s+/)
    if (keyword === 'search' || keyword === 'domain') domains = words
  }
  return domains
    .map(withoutDot)
    .filter((domain) => DNS_NAME.test(domain))
    .slice(0, DOMAINS_MAX)
}

export function withoutDot(name: string): string {
  return name.endsWith('.') ? name.slice(0, -1) : name
}

function badKey(key: string, value: string, expected: string): CairnError {
  return new CairnError(
    'CONFIG_INVALID',
    `plugins.discovery-dns.${key}: ${JSON.stringify(value)}: expected ${expected}`,
    {
      next: 'correct it in cairn.json, then: cairn plugin reload discovery-dns',
    },
  )
}
