/** Everything that arrives at the ports of a host, and every answer, takes longer. There is no netem here. */
import path from 'node:path'
import type { TestHost } from '../integration/support/hosts.ts'
import { until } from '../integration/support/programs.ts'
import { type NetworkHost, reconnect, redirect } from '../integration/support/network.ts'
import { CHUNK_SERVER_PORT } from './cluster.ts'

const PROGRAM = path.join(import.meta.dirname, 'delaying-proxy.ts')
const PROXY_PORT = 9_000

export async function delayed(
  starter: TestHost,
  host: NetworkHost,
  delayMs: number,
): Promise<{ end(): Promise<void> }> {
  const [enter, ...rest] = host.prefix
  const ports = [PROXY_PORT, CHUNK_SERVER_PORT, delayMs].map(String)
  const command = [...rest, process.execPath, PROGRAM, host.address, ...ports]
  const { child, output } = starter.spawn(enter, command)
  await until('the proxy listens', () => output().includes('listens') || output())
  await redirect(host, [CHUNK_SERVER_PORT], PROXY_PORT)
  return {
    async end() {
      await reconnect(host)
      await starter.stop(child, 'SIGKILL')
    },
  }
}
