/**
 * Announces metadata servers on the chosen interfaces: says so twice when they come, answers questions while they
 * stay, says good-bye when they go. Interfaces that come and go are followed. Answers are spaced, so that a flood
 * of questions does not become a flood of answers.
 */
import type { Announcement, Clock, Logger, Timer } from '@cairn/core/plugin'
import { chooseInterfaces, type Interface } from './interfaces.ts'
import { MULTICAST_PORT, type MulticastSocket, openMulticast, type Sender } from './multicast.ts'
import { answerTo, type DnsRecord, goodbyeOf, recordsOf } from './records.ts'

/** RFC 6762, section 8.3: at least two, one second apart. */
const REPEAT_MS = 1000
const FOLLOW_INTERFACES_MS = 10_000
/** Between two answers on one interface. */
const ANSWER_INTERVAL_MS = 100
const ANY_ADDRESS = new Set(['0.0.0.0', '::'])
const WARNINGS_MAX = 20

interface Line {
  readonly socket: MulticastSocket
  readonly network: Interface
  records: readonly DnsRecord[]
  lastAnswerMs: number
}

export class Responder {
  readonly #wanted: readonly string[]
  readonly #clock: Clock
  readonly #logger: Logger
  /** By address of the interface. */
  readonly #lines = new Map<string, Line>()
  #announcements: readonly Announcement[] = []
  #follow: Timer | undefined
  #warningCount = 0

  constructor(wanted: readonly string[], clock: Clock, logger: Logger) {
    this.#wanted = wanted
    this.#clock = clock
    this.#logger = logger
  }

  /** From now on exactly these. Returns what is not announced anywhere, and why. */
  async announce(announcements: readonly Announcement[]): Promise<readonly string[]> {
    this.#announcements = announcements
    this.#follow?.cancel()
    const skipped = await this.#update()
    if (announcements.length > 0) this.#followLater()
    return skipped
  }

  #followLater(): void {
    this.#follow = this.#clock.setTimer(FOLLOW_INTERFACES_MS, () => {
      this.#followLater()
      return this.#update()
    })
  }

  async #update(): Promise<readonly string[]> {
    const { interfaces, missing } = chooseInterfaces(this.#wanted)
    const announced = new Set<Announcement>()
    const kept = new Set<string>()
    const farewells: Promise<void>[] = []
    for (const network of interfaces) {
      const records = this.#announcements.flatMap((announcement) => {
        const address = addressOn(network, announcement.host, this.#wanted.length > 0)
        if (address === undefined) return []
        announced.add(announcement)
        return recordsOf(announcement, address)
      })
      if (records.length === 0) continue
      kept.add(network.address)
      farewells.push(this.#say(network, records))
    }
    for (const [address, line] of this.#lines) {
      if (kept.has(address)) continue
      this.#lines.delete(address)
      farewells.push(
        line.socket.respond({ answers: goodbyeOf(line.records) }).then(() => line.socket.close()),
      )
    }
    await Promise.all(farewells)
    return [
      ...missing.map((name) => `there is no interface ${name}`),
      ...this.#announcements
        .filter((announcement) => !announced.has(announcement))
        .map(
          ({ cluster, host, port }) => `${cluster} at ${host}:${port}: no chosen interface has this address`,
        ),
    ]
  }

  async #say(network: Interface, records: readonly DnsRecord[]): Promise<void> {
    const line = this.#lines.get(network.address) ?? this.#open(network)
    const before = line.records
    if (JSON.stringify(before) === JSON.stringify(records)) return
    line.records = records
    const names = new Set(records.map((record) => record.name))
    const gone = before.filter((record) => !names.has(record.name))
    if (gone.length > 0) await line.socket.respond({ answers: goodbyeOf(gone) })
    await line.socket.respond({ answers: [...records] })
    this.#clock.setTimer(REPEAT_MS, () => {
      if (this.#lines.get(network.address) === line && line.records === records)
        return line.socket.respond({ answers: [...records] })
      return undefined
    })
  }

  #open(network: Interface): Line {
    const line: Line = {
      network,
      records: [],
      lastAnswerMs: Number.NEGATIVE_INFINITY,
      socket: openMulticast(network, {
        onQuery: (questions, from) => this.#answer(line, questions, from),
        onProblem: (problem) => this.#warn(problem),
      }),
    }
    this.#lines.set(network.address, line)
    return line
  }

  #answer(line: Line, questions: readonly { name: string; type: string }[], from: Sender): void {
    const nowMs = this.#clock.nowMs()
    if (nowMs - line.lastAnswerMs < ANSWER_INTERVAL_MS) return
    for (const question of questions) {
      const answer = answerTo(question, line.records)
      if (answer === undefined) continue
      line.lastAnswerMs = nowMs
      // One who asks from another port listens only there, and wants the id of his question.
      if (from.port === MULTICAST_PORT) void line.socket.respond(answer)
      else void line.socket.respond({ ...answer, id: from.id }, from)
    }
  }

  #warn(problem: string): void {
    this.#warningCount += 1
    if (this.#warningCount <= WARNINGS_MAX) this.#logger.warn('multicast DNS', { problem })
  }
}

/** The address to announce on that interface; undefined: none. */
function addressOn(network: Interface, host: string, isChosen: boolean): string | undefined {
  if (ANY_ADDRESS.has(host)) return network.address
  if (network.addresses.includes(host)) return host
  // An administrator who names interfaces may want an address told there that belongs to another one.
  return isChosen && !isLoopback(host) && /^[0-9.]+$|:/.test(host) ? host : undefined
}

function isLoopback(host: string): boolean {
  return host.startsWith('127.') || host === '::1'
}
