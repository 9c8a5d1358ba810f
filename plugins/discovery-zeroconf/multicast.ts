/** One multicast socket on one interface (package multicast-dns), deaf to what comes from elsewhere. */
import makeMulticast from 'multicast-dns'
import type { QueryOutgoingPacket, ResponseOutgoingPacket } from 'multicast-dns'
import type { Interface } from './interfaces.ts'
import type { DnsRecord } from './records.ts'

export const MULTICAST_PORT = 5353

export interface MulticastEvents {
  onQuery?(questions: readonly { readonly name: string; readonly type: string }[], from: Sender): void
  onResponse?(records: readonly DnsRecord[]): void
  onProblem(problem: string): void
}

export interface Sender {
  readonly address: string
  readonly port: number
  /** Of the question; to be repeated to one who did not ask from port 5353 (RFC 6762, section 6.7). */
  readonly id: number
}

export interface MulticastSocket {
  query(questions: QueryOutgoingPacket['questions']): void
  respond(response: ResponseOutgoingPacket & { id?: number }, to?: Sender): Promise<void>
  close(): Promise<void>
}

export function openMulticast(network: Interface, events: MulticastEvents): MulticastSocket {
  // Bound to all addresses: a socket bound to the interface's own would not hear the group.
  const multicast = makeMulticast({ interface: network.address, bind: '0.0.0.0', reuseAddr: true })
  const onProblem = (error: Error): void => events.onProblem(`${network.name}: ${error.message}`)
  multicast.on('error', onProblem)
  multicast.on('warning', onProblem)
  multicast.on('query', ({ questions = [], id = 0 }, { address, port }) => {
    if (network.isNeighbour(address)) events.onQuery?.(questions, { address, port, id })
  })
  multicast.on('response', ({ answers = [], additionals = [] }, { address }) => {
    if (network.isNeighbour(address)) events.onResponse?.([...answers, ...additionals])
  })
  const problemIn = (error?: Error | null): void => {
    if (error) onProblem(error)
  }
  return {
    query: (questions) => multicast.query({ questions }, problemIn),
    respond: (response, to) =>
      new Promise((resolve) => {
        const done = (error: Error | null): void => {
          problemIn(error)
          resolve()
        }
        if (to === undefined) multicast.respond(response, done)
        else multicast.respond(response, { address: to.address, port: to.port }, done)
      }),
    close: () => new Promise((resolve) => multicast.destroy(() => resolve())),
  }
}
