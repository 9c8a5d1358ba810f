/**
 * Looks for announced metadata servers on the chosen interfaces, for a short while: asks, listens, asks for what is
 * missing, closes its sockets. Questions at the same time share one look.
 */
import type { Clock } from '@cairn/core/plugin'
import { chooseInterfaces } from './interfaces.ts'
import { type MulticastSocket, openMulticast } from './multicast.ts'
import { type DnsRecord, type FoundServer, missingIn, SERVICE, serversIn } from './records.ts'

/** Kept of all that is heard while looking. */
const RECORDS_MAX = 4000
/** Shares of the time at which is asked (again): a lost packet is no answer. */
const ASK_AT = [0, 0.2, 0.5]
const QUESTIONS_PER_PACKET_MAX = 20
const PROBLEMS_MAX = 8

export interface Look {
  readonly servers: readonly FoundServer[]
  readonly skipped: readonly string[]
  readonly problem: string | undefined
}

export class Browser {
  readonly #wanted: readonly string[]
  readonly #lookMs: number
  readonly #clock: Clock
  #looking: Promise<Look> | undefined

  constructor(wanted: readonly string[], lookMs: number, clock: Clock) {
    this.#wanted = wanted
    this.#lookMs = lookMs
    this.#clock = clock
  }

  look(): Promise<Look> {
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined
    })
    return this.#looking
  }

  async #look(): Promise<Look> {
    const { interfaces, missing } = chooseInterfaces(this.#wanted)
    const problems = missing.map((name) => `there is no interface ${name}`)
    if (interfaces.length === 0)
      return { servers: [], skipped: [], problem: problems[0] ?? 'no network interface has an IPv4 address' }
    const heard = new Heard()
    const sockets = interfaces.map((network) =>
      openMulticast(network, {
        onResponse: (records) => heard.add(records),
        onProblem: (problem) => {
          if (problems.length < PROBLEMS_MAX) problems.push(problem)
        },
      }),
    )
    try {
      await this.#askAndListen(sockets, heard)
    } finally {
      await Promise.all(sockets.map((socket) => socket.close()))
    }
    const { servers, skipped } = serversIn(heard.records())
    // A problem on one interface does not spoil what was found on another.
    const isFailed = servers.length === 0 && problems.length > 0
    return {
      servers,
      skipped: isFailed ? skipped : [...skipped, ...problems],
      problem: isFailed ? problems.join('; ') : undefined,
    }
  }

  #askAndListen(sockets: readonly MulticastSocket[], heard: Heard): Promise<void> {
    const ask = (): void => {
      const questions = [{ name: SERVICE, type: 'PTR' as const }, ...missingIn(heard.records())]
      for (const socket of sockets) socket.query(questions.slice(0, QUESTIONS_PER_PACKET_MAX))
    }
    return new Promise((resolve) => {
      for (const share of ASK_AT) this.#clock.setTimer(share * this.#lookMs, ask)
      this.#clock.setTimer(this.#lookMs, resolve)
    })
  }
}

/** The latest of what was said; good-byes take back. */
class Heard {
  readonly #records = new Map<string, DnsRecord>()

  add(records: readonly DnsRecord[]): void {
    for (const record of records) {
      if (!('data' in record)) continue
      const several = record.type === 'PTR' || record.type === 'A' || record.type === 'AAAA'
      const key = `${record.type} ${record.name.toLowerCase()} ${several ? String(record.data) : ''}`
      if (record.ttl === 0) this.#records.delete(key)
      else if (this.#records.size < RECORDS_MAX || this.#records.has(key)) this.#records.set(key, record)
    }
  }

  records(): readonly DnsRecord[] {
    return [...this.#records.values()]
  }
}
