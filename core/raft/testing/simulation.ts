/**
 * A group of members in a world that does them all the harm Raft must bear: messages are dropped, delayed,
 * doubled and reordered, links die one way, clocks run at different rates, processes stop, crash with what was
 * not synced, and come back; members come and go. Everything follows from the seed. The checker looks at every
 * step; in the end the world heals and the group must work again.
 */
import { codeOf } from '../../base/errors.ts'
import { Prng } from '../../base/prng.ts'
import type { Message, RaftFaults, RaftOptions, Ready } from '../index.ts'
import { Checker, Violation } from './checker.ts'
import { EventHeap } from './event-heap.ts'
import { Member } from './member.ts'
import { Nemesis } from './nemesis.ts'

/** Units of simulated time in a tick of a clock that runs true. */
export const tickUnits = 1000

export interface SimulationOptions {
  readonly seed: number
  readonly faults?: RaftFaults
  /** Ticks of trouble before the world heals. */
  readonly troubleTicks?: number
  /** Clocks run true within so many percent. More than Raft was told breaks leases, and nothing else. */
  readonly clockDriftPercent?: number
}

export interface SimulationSummary {
  readonly seed: number
  readonly eventCount: number
  readonly leaderCount: number
  readonly committedCount: number
  readonly leaseReadCount: number
  readonly indexReadCount: number
  readonly crashCount: number
  readonly snapshotCount: number
  readonly configurationCount: number
  readonly transferCount: number
}

interface Process {
  readonly member: Member
  readonly tickInterval: number
  /** Raised by a crash: what was planned for the process before it has no effect. */
  generation: number
  isStopped: boolean
  missedTickCount: number
  isSyncPlanned: boolean
  syncDelayMax: number
}

const raftOptions = {
  electionTicks: 10,
  heartbeatTicks: 1,
  messageBytesMax: 400,
  inflightCountMax: 8,
  inflightBytesMax: 1600,
  uncommittedCountMax: 60,
  committedBytesMax: 300,
  promoteLagCountMax: 5,
} satisfies Partial<RaftOptions>

const memberCount = 5
const healTicks = 250

export class Simulation {
  readonly random: Prng
  readonly heap = new EventHeap()
  readonly checker = new Checker()
  readonly processes: Process[] = []
  readonly #options: SimulationOptions
  readonly #cut = new Set<string>()
  readonly #nemesis: Nemesis
  /** Small ones send entries one by one. */
  readonly #messageBytesMax: number
  readonly #networkDelayMax: number
  readonly #syncDelayMax: number
  #clientPace: number
  dropPercent = 0
  longDelayPercent = 0
  /** Clients ask for nothing until then. */
  quietUntil = 0
  #isHealed = false
  #commandCount = 0
  #readCount = 0
  readonly counts = { leaseRead: 0, indexRead: 0, crash: 0, snapshot: 0, configuration: 0, transfer: 0 }

  constructor(options: SimulationOptions) {
    this.#options = options
    this.random = new Prng(options.seed)
    const { random } = this
    this.#messageBytesMax = random.below(2) === 0 ? 40 : raftOptions.messageBytesMax
    this.#networkDelayMax = random.below(2) === 0 ? 100 : 700
    this.#syncDelayMax = random.below(2) === 0 ? 50 : 400
    this.#clientPace = [600, 2 * tickUnits, 2 * tickUnits, 60 * tickUnits][random.below(4)] ?? tickUnits
    const voterCount = 3 + this.random.below(3)
    const voters = Array.from({ length: voterCount }, (_, i) => i + 1)
    for (let id = 1; id <= memberCount; id++) {
      const configuration = id <= voterCount ? { voters, learners: [] } : { voters: [], learners: [] }
      this.processes.push(this.#makeProcess(id, configuration))
    }
    this.#nemesis = new Nemesis(this)
  }

  /** Throws a Violation. */
  run(): SimulationSummary {
    for (const process of this.processes) this.#boot(process)
    this.#planClient()
    this.#nemesis.start()
    const troubleTicks = this.#options.troubleTicks ?? 400
    let eventCount = this.#runUntil(troubleTicks * tickUnits)
    this.#heal()
    eventCount += this.#runUntil((troubleTicks + healTicks) * tickUnits)
    this.#checkLiveness()
    return {
      seed: this.#options.seed,
      eventCount,
      leaderCount: this.checker.leaderCount,
      committedCount: this.checker.committedMax,
      leaseReadCount: this.counts.leaseRead,
      indexReadCount: this.counts.indexRead,
      crashCount: this.counts.crash,
      snapshotCount: this.counts.snapshot,
      configurationCount: this.counts.configuration,
      transferCount: this.counts.transfer,
    }
  }

  get leaderProcess(): Process | undefined {
    const leaders = this.processes.filter(({ member }) => member.node?.role === 'leader')
    return leaders.sort((a, b) => (b.member.node?.term ?? 0) - (a.member.node?.term ?? 0))[0]
  }

  cut(from: number, to: number): void {
    this.#cut.add(`${from} ${to}`)
  }

  mendLinks(): void {
    this.#cut.clear()
  }

  /** The process dies with what it had not synced, and starts again after the delay. */
  crash(process: Process, restartDelay: number): void {
    if (!process.member.isAlive) return
    this.counts.crash++
    process.generation++
    process.isStopped = false
    process.isSyncPlanned = false
    const unsynced = process.member.unsyncedCount
    process.member.crash(this.random.below(unsynced + 1), this.random.below(2) === 0)
    this.heap.plan(restartDelay, () => {
      if (!process.member.isAlive) this.#boot(process)
    })
  }

  /** Does something to a running process, and then whatever follows from it. */
  touch(process: Process, action: () => void): void {
    if (!process.member.isAlive || process.isStopped) return
    try {
      action()
      this.#settle(process)
    } catch (error) {
      if (error instanceof Violation || codeOf(error) === 'UNKNOWN') throw error
      throw new Violation('member failed', error instanceof Error ? error.message : String(error))
    }
  }

  /** Like SIGSTOP and SIGCONT: the clock goes on, the process sees it jump. */
  stop(process: Process, delay: number): void {
    const { generation } = process
    process.isStopped = true
    this.heap.plan(delay, () => {
      if (process.generation === generation) this.#resume(process)
    })
  }

  #resume(process: Process): void {
    process.isStopped = false
    const { missedTickCount } = process
    process.missedTickCount = 0
    if (missedTickCount > 0) this.touch(process, () => process.member.node?.tick(missedTickCount))
  }

  #makeProcess(id: number, configuration: { voters: number[]; learners: number[] }): Process {
    const drift = this.#options.clockDriftPercent ?? 10
    const spread = this.random.below(3) === 0 ? this.random.below(2 * drift + 1) - drift : 0
    const rate = 100 + (spread === 0 ? drift * (this.random.below(3) - 1) : spread)
    const member = new Member({
      id,
      configuration,
      random: this.random.fork(),
      options: { ...raftOptions, messageBytesMax: this.#messageBytesMax },
      faults: this.#options.faults ?? {},
      observer: {
        onReady: (from, ready) => this.#onReady(from, ready),
        onApply: (from, entry, before, after) => this.checker.onApply(from, entry, before, after),
        send: (message) => this.#send(message),
      },
    })
    return {
      member,
      tickInterval: Math.round((tickUnits * 100) / rate),
      generation: 0,
      isStopped: false,
      missedTickCount: 0,
      isSyncPlanned: false,
      syncDelayMax: this.#syncDelayMax,
    }
  }

  #boot(process: Process): void {
    this.checker.restarted(process.member)
    process.missedTickCount = 0
    process.member.start()
    const { generation } = process
    const tick = (): void => {
      if (process.generation !== generation) return
      if (process.isStopped) process.missedTickCount++
      else this.touch(process, () => process.member.node?.tick())
      this.heap.plan(process.tickInterval, tick)
    }
    this.heap.plan(1 + this.random.below(process.tickInterval), tick)
    this.touch(process, () => undefined)
  }

  #settle(process: Process): void {
    const { member } = process
    member.collect()
    const { leaderCount } = this.checker
    this.checker.afterStep(member)
    if (this.checker.leaderCount > leaderCount) this.#nemesis.leaderAppeared(process)
    // A new commit anywhere makes every lease that is behind it a lie.
    for (const other of this.processes)
      if (!other.isStopped && this.checker.checkLease(other.member)) this.counts.leaseRead++
    if (member.unsyncedCount > 0 && !process.isSyncPlanned)
      this.#planSync(process, 1 + this.random.below(process.syncDelayMax), member.unsyncedCount)
  }

  /** One write at a time, of what was there when it began. A stopped process hears of it later. */
  #planSync(process: Process, delay: number, count: number): void {
    process.isSyncPlanned = true
    const { generation } = process
    this.heap.plan(delay, () => {
      if (process.generation !== generation) return
      if (process.isStopped) {
        this.#planSync(process, tickUnits, count)
        return
      }
      process.isSyncPlanned = false
      this.touch(process, () => process.member.sync(count))
    })
  }

  #onReady(member: Member, ready: Ready): void {
    this.checker.onReady(member, ready)
    this.counts.indexRead += ready.reads.length
    for (const to of ready.snapshotsNeeded) this.#stream(member, to)
    if (ready.snapshot !== null) this.counts.snapshot++
  }

  /** The driver's part: the file travels by itself, and may get lost; the outcome is always reported. */
  #stream(member: Member, to: number): void {
    const process = this.processes[member.id - 1]
    const target = this.processes[to - 1]
    const file = member.makeFile()
    if (process === undefined || target === undefined) return
    const { generation } = process
    const message = file === null ? null : (member.node?.snapshotMessage(to, file.snapshot) ?? null)
    this.heap.plan(500 + this.random.below(6 * tickUnits), () => {
      const isLost = this.#isCut(member.id, to) || (!this.#isHealed && this.random.below(4) === 0)
      const hasArrived = !isLost && file !== null && message !== null && target.member.isAlive
      if (hasArrived)
        this.touch(target, () => {
          target.member.receiveFile(file)
          target.member.node?.step(message)
        })
      if (process.generation !== generation) return
      const receivedIndex = hasArrived && !target.isStopped ? file.snapshot.index : null
      // A stopped process reports when it goes on.
      if (process.isStopped)
        this.heap.plan(10 * tickUnits, () => process.member.node?.reportSnapshot(to, receivedIndex))
      else this.touch(process, () => process.member.node?.reportSnapshot(to, receivedIndex))
    })
  }

  #isCut(from: number, to: number): boolean {
    return this.#cut.has(`${from} ${to}`)
  }

  #send(message: Message): void {
    const { random } = this
    if (this.#isCut(message.from, message.to) || random.below(100) < this.dropPercent) return
    const copyCount = random.below(100) < this.dropPercent ? 2 : 1
    for (let copy = 0; copy < copyCount; copy++) {
      const isLate = random.below(100) < this.longDelayPercent
      const delay = 10 + random.below(isLate ? 25 * tickUnits : this.#networkDelayMax)
      this.heap.plan(delay, () => this.#deliver(message))
    }
  }

  #deliver(message: Message): void {
    const target = this.processes[message.to - 1]
    if (target === undefined || this.#isCut(message.from, message.to)) return
    // What reaches a stopped process waits in its socket, a little.
    if (target.isStopped && this.random.below(4) > 0) this.heap.plan(tickUnits, () => this.#deliver(message))
    else this.touch(target, () => target.member.node?.step(message))
  }

  #planClient(): void {
    this.heap.plan(50 + this.random.below(this.#clientPace), () => {
      const process = this.processes[this.random.below(memberCount)]
      const target = this.random.below(4) === 0 ? process : this.leaderProcess
      const isQuiet = this.heap.now < this.quietUntil
      if (target !== undefined && !isQuiet) this.touch(target, () => this.#callAsClient(target.member))
      this.#planClient()
    })
  }

  #callAsClient(member: Member): void {
    const { node } = member
    if (node === null) return
    if (this.random.below(3) === 0) {
      const id = ++this.#readCount
      this.checker.readAsked(id)
      node.readIndex(id)
    } else
      node.propose(
        Array.from({ length: 1 + this.random.below(4) }, () => Buffer.from(`${++this.#commandCount}`)),
      )
    if (this.random.below(3) === 0) member.trim(4 + this.random.below(20))
  }

  #heal(): void {
    this.#isHealed = true
    // Full queues are no want of liveness.
    this.#clientPace = Math.max(this.#clientPace, 8 * tickUnits)
    this.#nemesis.stop()
    this.mendLinks()
    this.dropPercent = 0
    this.longDelayPercent = 0
    for (const process of this.processes) {
      process.syncDelayMax = this.#syncDelayMax
      if (!process.member.isAlive) this.#boot(process)
      if (process.isStopped) this.#resume(process)
    }
  }

  #checkLiveness(): void {
    const leader = this.leaderProcess?.member
    if (leader === undefined || leader.node === null) throw new Violation('liveness', 'nobody leads')
    const result = leader.node.propose([Buffer.from('last')])
    if (!result.ok) throw new Violation('liveness', `the leader refuses: ${result.code}`)
    const before = this.checker.committedMax
    this.touch(this.processes[leader.id - 1] as Process, () => undefined)
    this.#runUntil(this.heap.now + 60 * tickUnits)
    if (this.checker.committedMax <= before) throw new Violation('liveness', 'nothing is committed')
    const { voters, learners } = leader.node.configuration
    for (const { member } of this.processes) {
      const isMember = voters.includes(member.id) || learners.includes(member.id)
      if (isMember && member.machine.index < result.index)
        throw new Violation(
          'liveness',
          `member ${member.id} is at ${member.machine.index}, not ${result.index}`,
        )
    }
  }

  #runUntil(time: number): number {
    let eventCount = 0
    while (this.heap.runNext(time)) eventCount++
    return eventCount
  }
}

export type { Process }

export function simulate(options: SimulationOptions): SimulationSummary {
  return new Simulation(options).run()
}
