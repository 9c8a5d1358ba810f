/**
 * Discovery by multicast DNS (Zeroconf): a metadata server announces itself, everybody else looks for it. For
 * trying things out and for small networks: anybody on the network can announce anything.
 */
import { CairnError, definePlugin } from '@cairn/core/plugin'
import { Browser, type Look } from './browser.ts'
import { INTERFACES_MAX } from './interfaces.ts'
import { Responder } from './responder.ts'

const METHOD = 'zeroconf'
/** After DNS, which an administrator wrote. */
const STAGE = 10
const BROWSE_TIME_MS_MIN = 100
/** Below the deadline of the hook. */
const BROWSE_TIME_MS_MAX = 5000

export default definePlugin({
  config: {
    interfaces: {
      doc: 'Network interfaces, by name or address, on which is announced and looked; empty: all but loopback',
      format: 'string[]',
      default: [],
    },
    browse_time: { doc: 'How long answers are waited for', format: 'duration', default: 1500 },
  },
  apply(kernel, { interfaces, browse_time: browseTimeMs }) {
    if (
      browseTimeMs < BROWSE_TIME_MS_MIN ||
      browseTimeMs > BROWSE_TIME_MS_MAX ||
      interfaces.length > INTERFACES_MAX
    )
      throw new CairnError(
        'CONFIG_INVALID',
        `plugins.discovery-zeroconf: browse_time must be ${BROWSE_TIME_MS_MIN} ms to ${BROWSE_TIME_MS_MAX} ms, and interfaces at most ${INTERFACES_MAX}`,
        { next: 'correct it in cairn.json, then: cairn plugin reload discovery-zeroconf' },
      )
    const browser = new Browser(interfaces, browseTimeMs, kernel.clock)
    const { discovery } = kernel.hooks
    discovery.resolve.tap(
      async (cluster) => {
        const look = await browser.look()
        return [{ ...outcomeOf(look), servers: look.servers.filter((server) => server.cluster === cluster) }]
      },
      { stage: STAGE },
    )
    discovery.list.tap(
      async () => {
        const look = await browser.look()
        const { seconds, nanoseconds } = kernel.clock.wall()
        const atMs = seconds * 1000 + Math.floor(nanoseconds / 1e6)
        const clusters = [...new Set(look.servers.map(({ cluster }) => cluster))]
        return [{ ...outcomeOf(look), clusters, atMs }]
      },
      { stage: STAGE },
    )
    if (kernel.role !== 'mds') return
    const responder = new Responder(interfaces, kernel.clock, kernel.logger)
    discovery.announce.tap(async (announcements) => {
      const skipped = await responder.announce(announcements)
      return [{ method: METHOD, ...(skipped.length === 0 ? {} : { skipped }) }]
    })
    kernel.onStop(async () => {
      await responder.announce([])
    })
  },
})

function outcomeOf({ problem, skipped }: Look): {
  method: string
  problem?: string
  skipped?: readonly string[]
} {
  return {
    method: METHOD,
    ...(problem === undefined ? {} : { problem }),
    ...(skipped.length === 0 ? {} : { skipped }),
  }
}
