/**
 * A network namespace for each metadata server, all on one bridge of the namespace that the campaign runs in.
 * A member is cut off by what a switch, a cable or a firewall would do. Nothing needs to be taken down: all of
 * it ends with the campaign's own namespace.
 */
import { must } from '../integration/support/cluster.ts'

const BRIDGE = 'bridge'
const OWN_ADDRESS = '10.77.0.254'
/** Holds the names of the namespaces below it; a mount of the campaign's own. */
const NAMES_DIRECTORY = '/run/netns'

/** `cable`: nothing passes. `deaf`: hears nothing. `mute`: is not heard. `members`: only clients reach it. */
export const isolations = ['cable', 'deaf', 'mute', 'members'] as const
export type Isolation = (typeof isolations)[number]

export function addressOf(number: number): string {
  return `10.77.0.${number}`
}

/** The command that runs the rest of its words inside member `number`'s namespace. */
export function prefixOf(number: number): readonly [string, ...string[]] {
  return ['nsenter', `--net=${NAMES_DIRECTORY}/${nameOf(number)}`]
}

function nameOf(number: number): string {
  return `mds${number}`
}

/** The cable's end on the bridge. */
function portOf(number: number): string {
  return `port${number}`
}

export async function makeNetwork(memberCount: number): Promise<void> {
  await must('mount', ['-t', 'tmpfs', 'none', NAMES_DIRECTORY])
  await must('ip', ['link', 'set', 'lo', 'up'])
  await must('ip', ['link', 'add', BRIDGE, 'type', 'bridge'])
  await must('ip', ['address', 'add', `${OWN_ADDRESS}/24`, 'dev', BRIDGE])
  await must('ip', ['link', 'set', BRIDGE, 'up'])
  for (let number = 1; number <= memberCount; number++) await addNamespace(number)
}

async function addNamespace(number: number): Promise<void> {
  const name = nameOf(number)
  const port = portOf(number)
  await must('ip', ['netns', 'add', name])
  await must('ip', ['link', 'add', port, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name])
  await must('ip', ['link', 'set', port, 'master', BRIDGE, 'up'])
  await must('ip', ['-n', name, 'address', 'add', `${addressOf(number)}/24`, 'dev', 'eth0'])
  for (const device of ['lo', 'eth0']) await must('ip', ['-n', name, 'link', 'set', device, 'up'])
  const chains = ['input', 'output'].map((hook) => `chain ${hook} { type filter hook ${hook} priority 0; }`)
  await firewall(number, `table inet fault {\n${chains.join('\n')}\n}`)
}

async function firewall(number: number, rules: string): Promise<void> {
  const [enter, ...namespace] = prefixOf(number)
  await must(enter, [...namespace, 'nft', '-f', '-'], { input: `${rules}\n` })
}

export async function isolate(number: number, isolation: Isolation): Promise<void> {
  switch (isolation) {
    case 'cable':
      await must('ip', ['link', 'set', portOf(number), 'down'])
      return
    case 'deaf':
      return await firewall(number, 'add rule inet fault input drop')
    case 'mute':
      return await firewall(number, 'add rule inet fault output drop')
    case 'members': {
      const others = `{ ${addressOf(1)}-${addressOf(99)} }`
      const rules = [
        `add rule inet fault input ip saddr ${others} drop`,
        `add rule inet fault output ip daddr ${others} drop`,
      ]
      return await firewall(number, rules.join('\n'))
    }
  }
}

export async function reconnect(number: number): Promise<void> {
  await firewall(number, 'flush table inet fault')
  await must('ip', ['link', 'set', portOf(number), 'up'])
}
