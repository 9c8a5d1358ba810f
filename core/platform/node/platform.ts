/** The real platform of a process, made once. */
import { NodeClock } from './clock.ts'
import { NodeNetwork } from './network.ts'
import { nodeRandom } from './random.ts'

export const nodeClock = new NodeClock()
export const nodeNetwork = new NodeNetwork()
export { nodeRandom }
