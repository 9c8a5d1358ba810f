/** Ports of the metadata servers of `cairn up`: pairs one behind the other, from the base port up. */
import net from 'node:net'
import { CairnError } from '../../base/errors.ts'
import { BASE_PORT_DEFAULT } from '../../cli/etc.ts'
import type { Address } from '../../platform/network.ts'
import { nodeClock } from '../../platform/node/platform.ts'
import { pause } from '../self.ts'

export const LOOPBACK = '127.0.0.1'
/** Longer than a server takes to stop when its supervisor went away. */
const PORTS_DEADLINE_MS = 20_000
const POLL_MS = 100

/** Base address of metadata server `number`, counted from 1. */
export function metadataAddress(basePort: number, number: number): Address {
  return { host: LOOPBACK, port: basePort + 2 * (number - 1) }
}

/** The default ports when they are free, else the first free ones above 12510. */
export async function freeBasePort(serverCount: number): Promise<number> {
  for (const port of [BASE_PORT_DEFAULT, ...Array.from({ length: 200 }, (_, index) => 12_510 + 10 * index)]) {
    if (await areFree(port, serverCount)) return port
  }
  throw new CairnError('FAILED', 'no free pair of ports was found', { next: 'name one with --port BASE' })
}

/**
 * Servers of an earlier run may need a moment to go. Somebody else's metadata server must not be taken for
 * ours: it might even have a cluster of this name.
 */
export async function waitForPorts(bases: readonly Address[]): Promise<void> {
  const deadlineMs = nodeClock.nowMs() + PORTS_DEADLINE_MS
  for (const { host, port } of bases) {
    while (!((await isFree(port, host)) && (await isFree(port + 1, host)))) {
      if (nodeClock.nowMs() > deadlineMs) {
        throw new CairnError('REFUSED', `port ${port} or ${port + 1} of ${host} is in use`, {
          next: `see by whom with: ss -ltnp 'sport >= :${port} and sport <= :${port + 1}'; or name another with --port`,
        })
      }
      await pause(POLL_MS)
    }
  }
}

async function areFree(port: number, serverCount: number): Promise<boolean> {
  for (let offset = 0; offset < 2 * serverCount; offset++) if (!(await isFree(port + offset))) return false
  return true
}

function isFree(port: number, host = LOOPBACK): Promise<boolean> {
  return new Promise((resolve) => {
    const server = net.createServer()
    server.once('error', () => resolve(false))
    server.listen(port, host, () => server.close(() => resolve(true)))
  })
}
