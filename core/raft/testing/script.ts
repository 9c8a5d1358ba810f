/**
 * Runs a readable trace: one command a line, `#` starts a comment. Time stands still but for `tick`, messages
 * wait but for `deliver`, disks write at once unless held: so a trace says exactly what happens in which order.
 *
 *   cluster 3 [learners=4] [election=10] ...      members 1 to 3 vote; options in ticks and counts
 *   preload 2 term=3 vote=1 log=1,1,3             what is on the disk before `start`: the terms of its entries
 *   node 4                                        an empty process that is no member yet
 *   start 1 2 | crash 1 | lose-log 1 (keeps the hard state) | campaign 1 | tick 1 10 | hold 1 | release 1
 *   drop 1 2 (that direction) | isolate 1 | heal | deliver [1 2] | lose (what waits) | later 1 2 (to the end)
 *   overtake 1 2                                  the last message of the link arrives first
 *   propose 1 x y | configure 1 remove 3 | transfer 1 2 | read 1 7 | trim 1 2 | unreachable 1 2
 *   resign 1                                      the driver of a leader whose disk does not answer
 *   stream 1 4 | stream-fails 1 4                 the driver's part of a snapshot
 *   expect 1 role=leader term=2 commit=3 ...      any fact of `factsOf`
 *   expect-refusal CODE                           of the last propose, configure, transfer or read
 *   expect-message 1 2 append previous=3 ...      the first waiting message of that link
 *   expect-none 1 2 [append]                      no such message waits
 *   expect-error CODE command...                  the command throws
 */
import { codeOf } from '../../base/errors.ts'
import { Prng } from '../../base/prng.ts'
import {
  type ConfigurationChange,
  emptyConfiguration,
  type Entry,
  type Message,
  type RaftFaults,
  type RaftNode,
  type RaftOptions,
  type Ready,
} from '../index.ts'
import { Member } from './member.ts'
import {
  compare,
  describeMessage,
  type Facts,
  factsOfMessage,
  isLink,
  parametersOf,
  ScriptError,
} from './script-facts.ts'

const optionNames: Readonly<Record<string, keyof RaftOptions>> = {
  election: 'electionTicks',
  heartbeat: 'heartbeatTicks',
  inflight: 'inflightCountMax',
  uncommitted: 'uncommittedCountMax',
  'message-bytes': 'messageBytesMax',
  'inflight-bytes': 'inflightBytesMax',
  'entry-bytes': 'entryBytesMax',
  'promote-lag': 'promoteLagCountMax',
  members: 'memberCountMax',
  reads: 'readCountMax',
}

export class Script {
  readonly #members = new Map<number, Member>()
  #waiting: Message[] = []
  readonly #cut = new Set<string>()
  readonly #held = new Set<number>()
  readonly #applied = new Map<number, { readonly index: number; readonly text: string }[]>()
  readonly #reads = new Map<number, string[]>()
  readonly #needs = new Map<number, number[]>()
  #options: Partial<RaftOptions> = {}
  readonly #faults: RaftFaults
  #lastRefusal = 'none'

  constructor(faults: RaftFaults = {}) {
    this.#faults = faults
  }

  /** Throws with the line that failed. Returns the number of commands. */
  run(text: string): number {
    let commandCount = 0
    for (const [position, line] of text.split('\n').entries()) {
      const words = (line.split('#')[0] ?? '').trim().split(/\s+/)
      if (words[0] === '') continue
      try {
        this.#execute(words)
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error)
        throw new Error(`line ${position + 1}: ${line.trim()}\n  ${reason}`, { cause: error })
      }
      commandCount++
    }
    return commandCount
  }

  #execute(words: readonly string[]): void {
    const [command = '', ...rest] = words
    if (command === 'expect-error') {
      this.#expectError(rest)
      return
    }
    if (command.startsWith('expect')) this.#expect(command, rest)
    else if (!this.#world(command, rest)) this.#act(command, rest)
    this.#settle()
  }

  /** Commands about processes, disks and the network. False when it is none. */
  #world(command: string, rest: readonly string[]): boolean {
    const ids = rest.map(Number)
    const [from = 0, to = 0] = ids
    switch (command) {
      case 'cluster':
        this.#cluster(rest)
        break
      case 'node':
        this.#add(from, emptyConfiguration).start()
        break
      case 'preload':
        this.#preload(from, parametersOf(rest.slice(1)))
        break
      case 'start':
        for (const id of ids) this.#start(id)
        break
      case 'crash':
        for (const id of ids) this.#member(id).crash()
        break
      case 'hold':
        this.#held.add(from)
        break
      case 'release':
        this.#held.delete(from)
        break
      case 'drop':
        this.#cut.add(`${from} ${to}`)
        break
      case 'isolate':
        for (const other of this.#members.keys()) this.#cut.add(`${from} ${other}`).add(`${other} ${from}`)
        break
      case 'heal':
        this.#cut.clear()
        break
      case 'deliver':
        this.#deliver(from, to)
        break
      case 'later':
        this.#waiting.sort((a, b) => Number(isLink(a, from, to)) - Number(isLink(b, from, to)))
        break
      case 'overtake': {
        const last = this.#waiting.findLastIndex((message) => isLink(message, from, to))
        if (last >= 0) this.#waiting.unshift(...this.#waiting.splice(last, 1))
        break
      }
      case 'lose':
        this.#waiting = []
        break
      case 'lose-log':
        this.#member(from).loseLog()
        break
      case 'trim':
        this.#member(from).trim(to)
        break
      default:
        return false
    }
    return true
  }

  #act(command: string, rest: readonly string[]): void {
    const [from = 0, to = 0] = rest.map(Number)
    const node = this.#node(from)
    switch (command) {
      case 'campaign':
        if (!node.campaign()) throw new ScriptError('it may not campaign')
        break
      case 'tick':
        for (let i = 0; i < to; i++) {
          node.tick()
          this.#settle()
        }
        break
      case 'tick-at-once':
        node.tick(to)
        break
      case 'propose':
        this.#note(node.propose(rest.slice(1).map((text) => Buffer.from(text))))
        break
      case 'configure': {
        const change = { type: rest[1] as ConfigurationChange['type'], member: Number(rest[2]) }
        this.#note(node.proposeConfiguration(change))
        break
      }
      case 'transfer':
        this.#note(node.transferLeader(to))
        break
      case 'resign':
        this.#note(node.maybeResign() ? { ok: true } : { ok: false, code: 'NOT_RESIGNED' })
        break
      case 'read':
        this.#note(node.readIndex(to))
        break
      case 'unreachable':
        node.reportUnreachable(to)
        break
      case 'stream':
        this.#stream(from, to)
        break
      case 'stream-fails':
        node.reportSnapshot(to, null)
        break
      default:
        throw new ScriptError('unknown command')
    }
  }

  #cluster(rest: readonly string[]): void {
    const voters = Array.from({ length: Number(rest[0]) }, (_, i) => i + 1)
    const parameters = parametersOf(rest.slice(1))
    const learners = (parameters['learners'] ?? '').split(',').filter(Boolean).map(Number)
    const options: Partial<Record<keyof RaftOptions, number>> = { electionTicks: 10, heartbeatTicks: 1 }
    for (const [name, value] of Object.entries(parameters)) {
      const option = optionNames[name]
      if (option !== undefined) options[option] = Number(value)
      else if (name !== 'learners' && name !== 'stopped') throw new ScriptError(`unknown option ${name}`)
    }
    this.#options = options
    for (const id of [...voters, ...learners]) {
      const member = this.#add(id, { voters, learners })
      if (parameters['stopped'] === undefined) member.start()
    }
  }

  #add(id: number, configuration: { voters: readonly number[]; learners: readonly number[] }): Member {
    const applied: { readonly index: number; readonly text: string }[] = []
    const reads: string[] = []
    const needs: number[] = []
    this.#applied.set(id, applied)
    this.#reads.set(id, reads)
    this.#needs.set(id, needs)
    const observer = {
      onReady: (_member: Member, ready: Ready) => {
        needs.push(...ready.snapshotsNeeded)
        for (const read of ready.reads) reads.push(`${read.id}@${read.index}`)
        for (const lost of ready.readsLost) reads.push(`${lost}@lost`)
      },
      onApply: (_member: Member, entry: Entry) => {
        if (entry.kind === 'command') applied.push({ index: entry.index, text: entry.data.toString() })
      },
      send: (message: Message) => this.#waiting.push(message),
    }
    const parts = {
      id,
      configuration,
      random: new Prng(id),
      options: this.#options,
      faults: this.#faults,
      observer,
    }
    const member = new Member(parts)
    this.#members.set(id, member)
    return member
  }

  /** What was applied and not yet durable is applied again. */
  #start(id: number): void {
    const member = this.#member(id)
    member.start()
    const applied = this.#applied.get(id) ?? []
    this.#applied.set(id, applied)
    applied.splice(0, applied.length, ...applied.filter(({ index }) => index <= member.machine.index))
  }

  #appliedBy(id: number): string[] {
    return (this.#applied.get(id) ?? []).map(({ text }) => text)
  }

  #preload(id: number, parameters: Readonly<Record<string, string>>): void {
    const terms = (parameters['log'] ?? '').split(',').filter(Boolean).map(Number)
    const entries = terms.map((term, i): Entry => {
      return { index: i + 1, term, kind: 'command', data: Buffer.from(`${i + 1}.${term}`) }
    })
    const term = Number(parameters['term'] ?? terms.at(-1) ?? 0)
    const hardState = {
      term,
      vote: Number(parameters['vote'] ?? 0),
    }
    this.#member(id).preload(hardState, entries)
  }

  /** Everything the disks may do now, and everything that follows from it. */
  #settle(): void {
    for (const [id, member] of this.#members) {
      member.collect()
      while (member.unsyncedCount > 0 && !this.#held.has(id)) {
        member.sync()
        member.collect()
      }
    }
  }

  /** Rounds of messages until none is left, or one round on one link. Bounded: a trace must come to rest. */
  #deliver(from: number, to: number): void {
    const isOnce = from !== 0
    for (let round = 0; this.#waiting.some((message) => from === 0 || isLink(message, from, to)); round++) {
      if (round === 100) throw new ScriptError('the members talk without end')
      const taken = this.#waiting.filter((message) => from === 0 || isLink(message, from, to))
      this.#waiting = this.#waiting.filter((message) => !taken.includes(message))
      for (const message of taken) {
        if (this.#cut.has(`${message.from} ${message.to}`)) continue
        this.#members.get(message.to)?.node?.step(message)
        this.#settle()
      }
      if (isOnce) return
    }
  }

  #stream(from: number, to: number): void {
    const file = this.#member(from).makeFile()
    if (file === null) throw new ScriptError('there is nothing to ship')
    const message = this.#node(from).snapshotMessage(to, file.snapshot)
    if (message === null) throw new ScriptError('it does not lead that member')
    this.#member(to).receiveFile(file)
    this.#waiting.push(message)
    this.#node(from).reportSnapshot(to, file.snapshot.index)
  }

  #expect(command: string, rest: readonly string[]): void {
    const [from = 0, to = 0] = rest.map(Number)
    if (command === 'expect-refusal') {
      if (this.#lastRefusal !== rest[0]) throw new ScriptError(`the last answer was: ${this.#lastRefusal}`)
      return
    }
    if (command === 'expect') {
      compare(this.#factsOf(from), parametersOf(rest.slice(1)))
      return
    }
    const messages = this.#waiting.filter((message) => isLink(message, from, to))
    const first = messages.find((message) => rest[2] === undefined || message.type === rest[2])
    if (command === 'expect-none') {
      if (first !== undefined) throw new ScriptError(`there is ${describeMessage(first)}`)
    } else if (command === 'expect-message') {
      if (first === undefined)
        throw new ScriptError(`there is only: ${messages.map(describeMessage).join('; ') || 'nothing'}`)
      compare(factsOfMessage(first), parametersOf(rest.slice(3)))
    } else throw new ScriptError('unknown command')
  }

  #expectError(rest: readonly string[]): void {
    const [code, ...command] = rest
    try {
      this.#execute(command)
    } catch (error) {
      if (codeOf(error) === code) return
      throw error
    }
    throw new ScriptError('nothing was thrown')
  }

  #factsOf(id: number): Facts {
    const status = this.#node(id).status()
    const { firstIndex, lastIndex } = status
    const terms: (number | undefined)[] = []
    for (let index = firstIndex; index <= lastIndex; index++) terms.push(this.#node(id).termOf(index))
    const members = status.members.map((one) => `${one.member}:${one.state}:${one.matchIndex}`)
    return {
      role: status.role,
      term: status.term,
      vote: status.vote,
      leader: status.leader,
      commit: status.commitIndex,
      first: firstIndex,
      last: lastIndex,
      log: terms.join(',') || 'empty',
      voters: status.configuration.voters.join(',') || 'none',
      learners: status.configuration.learners.join(',') || 'none',
      lease: status.hasLease ? 'yes' : 'no',
      transfer: status.transferTarget,
      members: members.join(',') || 'none',
      applied: this.#appliedBy(id).join(',') || 'none',
      reads: this.#reads.get(id)?.join(',') || 'none',
      needs: this.#needs.get(id)?.join(',') || 'none',
    }
  }

  #note(result: { readonly ok: boolean; readonly code?: string }): void {
    this.#lastRefusal = result.ok ? 'none' : (result.code ?? 'unknown')
  }

  #member(id: number): Member {
    const member = this.#members.get(id)
    if (member === undefined) throw new ScriptError(`there is no member ${id}`)
    return member
  }

  #node(id: number): RaftNode {
    const { node } = this.#member(id)
    if (node === null) throw new ScriptError(`member ${id} is dead`)
    return node
  }
}
