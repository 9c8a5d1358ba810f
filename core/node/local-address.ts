/** Which of this host's addresses the metadata servers see, and which ports are free. */
import net from 'node:net'
import { CairnError } from '../base/errors.ts'
import type { Address } from '../platform/network.ts'

const CONNECT_TIMEOUT_MS = 2000

/** The local address of a connection to one of the servers. Rejects with UNREACHABLE when none answers. */
export async function localAddressTowards(servers: readonly Address[]): Promise<string> {
  for (const server of servers) {
    const local = await new Promise<string | undefined>((resolve) => {
      const socket = net.connect({ host: server.host, port: server.port + 1, timeout: CONNECT_TIMEOUT_MS })
      socket.once('connect', () => {
        resolve(socket.localAddress)
        socket.destroy()
      })
      socket.once('timeout', () => socket.destroy())
      socket.once('error', () => resolve(undefined))
      socket.once('close', () => resolve(undefined))
    })
    if (local !== undefined) return local.replace(/^::ffff:/, '')
  }
  throw new CairnError('UNREACHABLE', 'no metadata server accepts a connection', {
    next: 'start one, or name the address of this host with -a',
  })
}

export interface PortRange {
  readonly first: number
  readonly last: number
}

/** "2520-2619". Throws USAGE. */
export function parsePortRange(text: string): PortRange {
  const match = /^(\d{1,5})-(\d{1,5})$/.exec(text)
  const first = Number(match?.[1] ?? 0)
  const last = Number(match?.[2] ?? 0)
  if (first < 1 || last > 65_535 || first > last) {
    throw new CairnError('USAGE', `'${text}' is no range of ports`, {
      next: 'write FIRST-LAST, for example 2520-2619',
    })
  }
  return { first, last }
}

export function isPortFree(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = net.createServer()
    server.once('error', () => resolve(false))
    server.listen(port, host, () => server.close(() => resolve(true)))
  })
}
