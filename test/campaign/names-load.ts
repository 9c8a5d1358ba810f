/**
 * Clients that create, rename, remove and look up the same few names of one directory at the same time, and
 * write down what they saw for the linearizability checker. The directory changes from round to round, so
 * that every history is short enough to be searched.
 */
import { performance } from 'node:perf_hooks'
import { setTimeout as pause } from 'node:timers/promises'
import { codeOf } from '../../core/base/errors.ts'
import type { Client, FileSystem } from '../../core/client/api.ts'
import {
  checkLinearizability,
  describeVerdict,
  type HistoryOperation,
} from '../../core/testing/linearizability/linearizability.ts'
import type { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import { type NamesInput, namesModel, type NamesOutput } from './names-model.ts'
import type { Crew } from './crew.ts'
import type { Pulse } from './pulse.ts'

const ROOT = 1
const NAMES = ['a', 'b', 'c', 'd', 'e']
const WORKERS_PER_CLIENT = 2
const THINK_MS_MAX = 20
const LIST_LIMIT = 1_000
const owner = { uid: 0, gid: 0 }

interface Directory {
  readonly name: string
  readonly inode: number
}

type Operation = HistoryOperation<NamesInput, NamesOutput>

export class NamesLoad {
  readonly #pulse: Pulse
  readonly #crew: Crew
  readonly #clients: readonly Client[]
  readonly #directories: Directory[] = []
  readonly #history: Operation[] = []
  #present: Directory | null = null
  #isOver = false
  /** The longest that one operation took. */
  longestMs = 0

  constructor(pulse: Pulse, crew: Crew, clients: readonly Client[]) {
    this.#pulse = pulse
    this.#crew = crew
    this.#clients = clients
  }

  get count(): number {
    return this.#history.length
  }

  /** From now on everybody works in a directory of this name. */
  async newRound(name: string, random: SeededRandom): Promise<void> {
    const [client] = this.#clients
    if (client === undefined) return
    const { inode } = await client.fileSystem.makeDirectory(ROOT, name, 0o755, owner)
    this.#present = { name, inode }
    this.#directories.push(this.#present)
    if (this.#directories.length === 1) this.#start(random)
  }

  #start(random: SeededRandom): void {
    for (const [number, client] of this.#clients.entries()) {
      const name = `names${number + 1}`
      for (let place = 0; place < WORKERS_PER_CLIENT; place++)
        this.#crew.add(name, this.#work(name, client.fileSystem, random.fork(`${name} ${place}`)))
    }
  }

  /** Nobody begins anything any more. */
  stop(): void {
    this.#isOver = true
  }

  async #work(client: string, fileSystem: FileSystem, random: SeededRandom): Promise<void> {
    while (!this.#isOver) {
      const directory = this.#present
      if (directory === null) return
      const input = inputOf(directory.name, random)
      await this.#record(client, input, () => perform(fileSystem, directory.inode, input))
      this.#pulse.beat(client)
      await pause(random.below(THINK_MS_MAX))
    }
  }

  async #record(client: string, input: NamesInput, perform: () => Promise<NamesOutput>): Promise<void> {
    const calledAt = performance.now()
    const operation: { -readonly [K in keyof Operation]: Operation[K] } = {
      ...{ client, input, calledAt, returnedAt: null },
    }
    this.#history.push(operation)
    operation.output = await perform()
    operation.returnedAt = performance.now()
    this.longestMs = Math.max(this.longestMs, operation.returnedAt - calledAt)
  }

  /** How long each operation took that was called since then, in ms. */
  latenciesSince(sinceMs: number): number[] {
    return this.#history.flatMap(({ calledAt, returnedAt }) =>
      calledAt >= sinceMs && returnedAt !== null ? [returnedAt - calledAt] : [],
    )
  }

  /** Goes into the history: what is there now is what all that was acknowledged has left. */
  async lookAtEverything(client: Client): Promise<void> {
    for (const { name, inode } of this.#directories)
      await this.#record('last', { kind: 'list', directory: name }, () => list(client.fileSystem, inode))
  }

  /** What is wrong; empty: nothing. */
  check(): string[] {
    const verdict = checkLinearizability(this.#history, namesModel)
    return verdict.kind === 'linearizable' ? [] : [`names: ${describeVerdict(verdict)}`]
  }
}

function inputOf(directory: string, random: SeededRandom): NamesInput {
  const name = NAMES[random.below(NAMES.length)] ?? ''
  switch (random.below(5)) {
    case 0:
    case 1:
      return { kind: 'create', directory, name }
    case 2:
      return { kind: 'look', directory, name }
    case 3:
      return { kind: 'remove', directory, name }
    default: {
      const to = NAMES[(NAMES.indexOf(name) + 1 + random.below(NAMES.length - 1)) % NAMES.length] ?? ''
      return { kind: 'rename', directory, name, to, replaces: random.below(2) === 0 }
    }
  }
}

async function perform(fileSystem: FileSystem, parent: number, input: NamesInput): Promise<NamesOutput> {
  try {
    switch (input.kind) {
      case 'create':
        return { inode: (await fileSystem.makeNode(parent, input.name, 'file', 0o644, 0, owner)).inode }
      case 'look':
        return { inode: (await fileSystem.lookup(parent, input.name)).inode }
      case 'remove':
        await fileSystem.unlink(parent, input.name)
        return 'done'
      case 'rename': {
        const mode = input.replaces ? 'replace' : 'no-replace'
        await fileSystem.rename(parent, input.name, parent, input.to, mode)
        return 'done'
      }
      case 'list':
        return await list(fileSystem, parent)
    }
  } catch (error) {
    const code = codeOf(error)
    if (code === 'ENOENT' || code === 'EEXIST') return { error: code }
    // Sessions outlive every fault here: nothing else may be answered.
    throw new Error(`${JSON.stringify(input)} failed with ${code}`, { cause: error })
  }
}

async function list(fileSystem: FileSystem, directory: number): Promise<NamesOutput> {
  const { entries } = await fileSystem.readDirectory(directory, 0, LIST_LIMIT, false)
  const own = entries.filter(({ name }) => name !== '.' && name !== '..')
  return { entries: own.map(({ name, inode }) => [name, inode] as const) }
}
