/** What goes wrong in a simulation, and when. Each seed has its own taste: some crash, some cut, some churn. */
import type { ConfigurationChange } from '../index.ts'
import { type Process, type Simulation, tickUnits } from './simulation.ts'

type Harm =
  | 'bounce'
  | 'crash'
  | 'cut'
  | 'isolate'
  | 'half'
  | 'mend'
  | 'stop'
  | 'network'
  | 'disk'
  | 'transfer'
  | 'configure'
  | 'blackout'
  | 'shadow'
  | 'deaf transfer'

const harms: readonly Harm[] = [
  'bounce',
  'crash',
  'cut',
  'isolate',
  'half',
  'mend',
  'stop',
  'network',
  'disk',
  'transfer',
  'configure',
  'blackout',
  'shadow',
  'deaf transfer',
]

export class Nemesis {
  readonly #simulation: Simulation
  /** Harms by weight: drawn from this list. */
  readonly #taste: Harm[] = []
  readonly #pace: number
  /** Above 0: every new leader meets with an accident within so much time. */
  readonly #leaderLifeMax: number
  #isStopped = false

  constructor(simulation: Simulation) {
    this.#simulation = simulation
    const { random } = simulation
    // Half of the seeds are after one thing above all.
    const focus = random.below(2) === 0 ? harms[random.below(harms.length)] : undefined
    for (const harm of harms) {
      const isGreat = harm === 'blackout' || harm === 'shadow'
      let weight = harm === 'mend' ? 3 : random.below(isGreat ? 2 : 4)
      if (focus !== undefined && harm !== 'mend') weight = harm === focus ? 8 : Math.min(weight, 1)
      for (let i = 0; i < weight; i++) this.#taste.push(harm)
    }
    this.#leaderLifeMax = random.below(3) === 0 ? (1 + random.below(4)) * tickUnits : 0
    this.#pace = (this.#leaderLifeMax > 0 ? 20 : 1 + random.below(16)) * tickUnits
    simulation.dropPercent = random.below(2) * random.below(15)
    simulation.longDelayPercent = random.below(2) * random.below(10)
  }

  start(): void {
    this.#simulation.heap.plan(1 + this.#simulation.random.below(this.#pace), () => {
      if (this.#isStopped) return
      const harm = this.#taste[this.#simulation.random.below(this.#taste.length)]
      // A plot that needs its time is not disturbed.
      const isQuiet = this.#simulation.heap.now < this.#simulation.quietUntil
      if (harm !== undefined && !isQuiet) this.#do(harm)
      this.start()
    })
  }

  stop(): void {
    this.#isStopped = true
  }

  /** The traps of elections are in the first moments of a leader (figure 8 of the paper). */
  leaderAppeared(leader: Process): void {
    const { random, heap, processes } = this.#simulation
    if (this.#isStopped || this.#leaderLifeMax === 0) return
    const cutCount = random.below(3)
    if (cutCount === 1) this.#cutLinks('cut', leader)
    if (cutCount === 2) for (const { member } of processes) this.#simulation.cut(leader.member.id, member.id)
    heap.plan(random.below(this.#leaderLifeMax), () => {
      if (this.#isStopped) return
      const accident = random.below(12)
      if (accident === 0) this.#do('blackout')
      else if (accident === 1) this.#cutLinks('isolate', leader)
      else this.#simulation.crash(leader, random.below(12 * tickUnits))
      if (random.below(4) > 0) this.#simulation.mendLinks()
    })
  }

  /** The leader more often than not: there it hurts. */
  #victim(): Process | undefined {
    const { random, processes, leaderProcess } = this.#simulation
    return random.below(2) === 0 && leaderProcess !== undefined
      ? leaderProcess
      : processes[random.below(processes.length)]
  }

  #do(harm: Harm): void {
    const simulation = this.#simulation
    const { random } = simulation
    const victim = this.#victim()
    if (victim === undefined) return
    switch (harm) {
      case 'bounce':
        simulation.crash(victim, 1 + random.below(tickUnits))
        return
      case 'crash':
        simulation.crash(victim, random.below(40 * tickUnits))
        return
      case 'stop':
        if (!victim.isStopped) simulation.stop(victim, random.below(25 * tickUnits))
        return
      case 'network':
        simulation.dropPercent = random.below(2) * random.below(30)
        simulation.longDelayPercent = random.below(2) * random.below(20)
        return
      case 'disk':
        victim.syncDelayMax = random.below(2) === 0 ? 400 : 6 * tickUnits
        this.#laterBy(4 * tickUnits, () => simulation.touch(victim, () => victim.member.node?.maybeResign()))
        return
      case 'transfer':
        this.#transfer()
        return
      case 'configure':
        this.#configure()
        return
      case 'blackout':
        for (const process of simulation.processes) simulation.crash(process, 1 + random.below(tickUnits))
        return
      case 'shadow':
        this.#shadow()
        return
      case 'deaf transfer':
        this.#transfer()
        this.#later(3 * tickUnits, () => this.#cutFromOthers(victim))
        return
      default:
        this.#cutLinks(harm, victim)
    }
  }

  #cutLinks(harm: 'cut' | 'isolate' | 'half' | 'mend', victim: Process): void {
    const simulation = this.#simulation
    const { random, processes } = simulation
    const victimId = victim.member.id
    if (harm === 'mend') simulation.mendLinks()
    const isInside = processes.map(() => random.below(2) === 0)
    for (const { member } of processes) {
      const { id } = member
      if (harm === 'cut' && random.below(2) === 0) simulation.cut(victimId, id)
      if (harm === 'isolate') {
        simulation.cut(id, victimId)
        if (random.below(3) > 0) simulation.cut(victimId, id)
      }
      if (harm !== 'half') continue
      for (const other of processes)
        if (isInside[id - 1] !== isInside[other.member.id - 1]) simulation.cut(id, other.member.id)
    }
  }

  #later(delayMax: number, action: () => void): void {
    this.#laterBy(this.#simulation.random.below(delayMax), action)
  }

  #laterBy(delay: number, action: () => void): void {
    this.#simulation.heap.plan(delay, () => {
      if (!this.#isStopped) action()
    })
  }

  #cutFromOthers(victim: Process): void {
    for (const { member } of this.#simulation.processes) this.#simulation.cut(member.id, victim.member.id)
  }

  /**
   * One member has not heard the leader for long; nobody writes, so that its log is as good as any, and only
   * promises keep it from being elected. Then the leader is alone, those who had just answered it restart, and
   * it asks again at once: do they remember (rule L3)?
   */
  #shadow(): void {
    const simulation = this.#simulation
    const { random, processes } = simulation
    const leader = simulation.leaderProcess
    const shadow = processes[random.below(processes.length)]
    if (leader === undefined || shadow === undefined || shadow === leader) return
    const silentFor = (12 + random.below(20)) * tickUnits
    simulation.quietUntil = simulation.heap.now + silentFor + 8 * tickUnits
    this.#laterBy(2 * tickUnits, () => simulation.cut(leader.member.id, shadow.member.id))
    this.#laterBy(silentFor, () => {
      for (const process of processes) {
        if (process === leader) continue
        simulation.cut(leader.member.id, process.member.id)
        simulation.cut(process.member.id, leader.member.id)
        if (process !== shadow) simulation.crash(process, 1 + random.below(200))
      }
    })
    this.#laterBy(silentFor + 300, () => simulation.touch(shadow, () => shadow.member.node?.campaign()))
  }

  #transfer(): void {
    const simulation = this.#simulation
    const leader = simulation.leaderProcess
    const to = 1 + simulation.random.below(simulation.processes.length)
    if (leader === undefined) return
    simulation.touch(leader, () => {
      if (leader.member.node?.transferLeader(to).ok === true) simulation.counts.transfer++
    })
  }

  #configure(): void {
    const simulation = this.#simulation
    const leader = simulation.leaderProcess
    const node = leader?.member.node ?? null
    if (leader === undefined || node === null) return
    const { random, processes } = simulation
    const member = 1 + random.below(processes.length)
    const { voters, learners } = node.configuration
    let type: ConfigurationChange['type'] = 'add-learner'
    if (learners.includes(member)) type = random.below(4) === 0 ? 'remove' : 'promote'
    if (voters.includes(member)) type = random.below(2) === 0 ? 'remove' : 'demote'
    // Two voters stay, so that healing has something to heal.
    if (voters.length <= 2 && voters.includes(member)) return
    simulation.touch(leader, () => {
      if (node.proposeConfiguration({ type, member }).ok) simulation.counts.configuration++
    })
  }
}
