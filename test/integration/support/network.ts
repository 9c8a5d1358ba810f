/**
 * A network namespace for each host of a test, all on one bridge of the namespace that the test runs in
 * (own-namespaces.ts). A host is cut off, or its line made bad, by what a switch, a cable or a firewall would
 * do. Nothing needs to be taken down: all of it ends with the namespace around it.
 */
import { must } from './cluster.ts'

const BRIDGE = 'bridge'
const NETWORK = '10.77.0'
const OWN_ADDRESS = `${NETWORK}.254`
/** Holds the names of the namespaces below it; a mount of the run's own. */
const NAMES_DIRECTORY = '/run/netns'
/** So many of each role have addresses. */
const HOSTS_MAX = 50

const firstAddress = { mds: 1, cs: 101, client: 201 } as const
export type HostRole = keyof typeof firstAddress

/**
 * `cable`: nothing passes. `deaf`: hears nothing. `mute`: is not heard. `mds`, `cs`, `client`: it and those of
 * that role do not reach each other; everybody else does. The test itself is one of the clients: a master that hears
 * one of them keeps its place, and the sessions of the others end (metadata/server/silence-watch.ts).
 */
export const isolations = ['cable', 'deaf', 'mute', 'mds', 'cs', 'client'] as const
export type Isolation = (typeof isolations)[number]

export interface NetworkHost {
  readonly name: string
  readonly role: HostRole
  readonly address: string
  /** The command that runs the rest of its words inside its namespace. */
  readonly prefix: readonly [string, ...string[]]
}

/** Numbers begin at 1. */
export function hostOf(role: HostRole, number: number): NetworkHost {
  if (number > HOSTS_MAX) throw new Error(`there are addresses for ${HOSTS_MAX} hosts of a role`)
  const name = `${role}${number}`
  const prefix = ['nsenter', `--net=${NAMES_DIRECTORY}/${name}`] as const
  return { name, role, address: `${NETWORK}.${firstAddress[role] + number - 1}`, prefix: [...prefix] }
}

/** The cable's end on the bridge. */
function portOf({ name }: NetworkHost): string {
  return `${name}-port`
}

export async function makeNetwork(hosts: readonly NetworkHost[]): Promise<void> {
  await must('mount', ['-t', 'tmpfs', 'none', NAMES_DIRECTORY])
  await must('ip', ['link', 'set', 'lo', 'up'])
  await must('ip', ['link', 'add', BRIDGE, 'type', 'bridge'])
  await must('ip', ['address', 'add', `${OWN_ADDRESS}/24`, 'dev', BRIDGE])
  await must('ip', ['link', 'set', BRIDGE, 'up'])
  for (const host of hosts) await addNamespace(host)
}

async function addNamespace(host: NetworkHost): Promise<void> {
  const { name, address } = host
  const port = portOf(host)
  await must('ip', ['netns', 'add', name])
  await must('ip', ['link', 'add', port, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name])
  await must('ip', ['link', 'set', port, 'master', BRIDGE, 'up'])
  await must('ip', ['-n', name, 'address', 'add', `${address}/24`, 'dev', 'eth0'])
  for (const device of ['lo', 'eth0']) await must('ip', ['-n', name, 'link', 'set', device, 'up'])
  const chains = ['input', 'output'].map((hook) => `chain ${hook} { type filter hook ${hook} priority 0; }`)
  await firewall(host, `table inet fault {\n${chains.join('\n')}\n}`)
}

/** Commands of nft, inside the host's namespace. */
async function firewall({ prefix: [enter, ...namespace] }: NetworkHost, rules: string): Promise<void> {
  await must(enter, [...namespace, 'nft', '-f', '-'], { input: `${rules}\n` })
}

export async function isolate(host: NetworkHost, isolation: Isolation): Promise<void> {
  switch (isolation) {
    case 'cable':
      await must('ip', ['link', 'set', portOf(host), 'down'])
      return
    case 'deaf':
      return await firewall(host, 'add rule inet fault input drop')
    case 'mute':
      return await firewall(host, 'add rule inet fault output drop')
    case 'mds':
    case 'cs':
    case 'client': {
      const first = firstAddress[isolation]
      const own = isolation === 'client' ? `, ${OWN_ADDRESS}` : ''
      const others = `{ ${NETWORK}.${first}-${NETWORK}.${first + HOSTS_MAX - 1}${own} }`
      const rules = [
        `add rule inet fault input ip saddr ${others} drop`,
        `add rule inet fault output ip daddr ${others} drop`,
      ]
      return await firewall(host, rules.join('\n'))
    }
  }
}

/** So many per cent of what arrives is lost. */
export async function losePackets(host: NetworkHost, percent: number): Promise<void> {
  await firewall(host, `add rule inet fault input numgen random mod 100 < ${percent} drop`)
}

/** What it sends queues up behind a slow line, for as long as `queueMs`; what does not fit is lost. */
export async function slowDown({ name }: NetworkHost, bitsPerSecond: number, queueMs: number): Promise<void> {
  const line = ['rate', `${bitsPerSecond}bit`, 'burst', '32k', 'latency', `${queueMs}ms`]
  await must('ip', ['netns', 'exec', name, 'tc', 'qdisc', 'add', 'dev', 'eth0', 'root', 'tbf', ...line])
}

/** What it is sent queues up in the same way. Lasts. */
export async function slowDownArrivals(
  host: NetworkHost,
  bitsPerSecond: number,
  queueMs: number,
): Promise<void> {
  const line = ['rate', `${bitsPerSecond}bit`, 'burst', '32k', 'latency', `${queueMs}ms`]
  await must('tc', ['qdisc', 'add', 'dev', portOf(host), 'root', 'tbf', ...line])
}

/**
 * Whoever connects to one of its `ports` reaches `proxyPort` on it instead; what is connected loses its
 * connection. Connections that it makes to itself go where they should.
 */
export async function redirect(
  host: NetworkHost,
  ports: readonly number[],
  proxyPort: number,
): Promise<void> {
  const wanted = `tcp dport { ${ports.join(', ')} }`
  // Not only new ones: an old connection ends at a port that knows nothing of it.
  await firewall(
    host,
    `table ip proxy {
      chain prerouting {
        type nat hook prerouting priority dstnat
        iifname "eth0" ${wanted} redirect to :${proxyPort}
      }
    }`,
  )
}

/** Ends whatever was done to its line. */
export async function reconnect(host: NetworkHost): Promise<void> {
  await firewall(host, 'flush table inet fault\nadd table ip proxy\ndelete table ip proxy')
  const { name } = host
  const queue = await must('ip', ['netns', 'exec', name, 'tc', 'qdisc', 'show', 'dev', 'eth0'])
  if (queue.includes('tbf'))
    await must('ip', ['netns', 'exec', name, 'tc', 'qdisc', 'del', 'dev', 'eth0', 'root'])
  await must('ip', ['link', 'set', portOf(host), 'up'])
}
