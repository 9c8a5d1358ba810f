/**
 * Was there one order of all operations, each at some moment between its call and its return, in which a
 * simple sequential model gives every answer that was seen? The search of Wing and Gong with the memory of
 * Lowe ("Testing for linearizability", 2017): the next operation is any that was called before another one
 * had to be over, and a pair (operations that happened, state) is looked at once. Knows nothing of what it
 * checks; times are only compared.
 *
 * An operation without a return may have happened at any moment after its call, or never: as few of them as
 * possible are taken. A model may be unsure of its state: it then gives several, followed together.
 */

export interface HistoryOperation<Input, Output> {
  readonly client: string
  readonly input: Input
  /** Any clock that all clients share; equal times count as concurrent. */
  readonly calledAt: number
  /** Null: the outcome is unknown. */
  readonly returnedAt: number | null
  /** Not looked at when the outcome is unknown. */
  readonly output?: Output | undefined
}

export interface SequentialModel<State, Input, Output> {
  initial(): State
  /**
   * Every state it may be in after this operation; none: it cannot have had this output. Without `output` the
   * operation happened and nobody knows how it ended. Must not change `state`.
   */
  step(state: State, input: Input, output: Output | undefined): readonly State[]
  /** Equal for equal states, and only for them. */
  key(state: State): string
  /** Operations of different partitions have nothing to do with each other. */
  partition?(input: Input): string
}

export interface CheckOptions {
  /** Operations tried, over all partitions, until the check gives up as undecided. */
  readonly stepCountMax?: number
}

export type Verdict<Input, Output> =
  | { readonly kind: 'linearizable'; readonly stepCount: number }
  | { readonly kind: 'undecided'; readonly stepCount: number }
  | {
      readonly kind: 'violation'
      readonly stepCount: number
      /** The longest order found. */
      readonly order: readonly HistoryOperation<Input, Output>[]
      /** It had to happen before everything that is left, and could not. */
      readonly stuck: HistoryOperation<Input, Output> | null
    }

const STEP_COUNT_MAX = 5_000_000

export function checkLinearizability<State, Input, Output>(
  history: readonly HistoryOperation<Input, Output>[],
  model: SequentialModel<State, Input, Output>,
  options: CheckOptions = {},
): Verdict<Input, Output> {
  let stepsLeft = options.stepCountMax ?? STEP_COUNT_MAX
  const stepCountMax = stepsLeft
  let isUndecided = false
  for (const part of partitions(history, model).values()) {
    const search = new Search(part, model, stepsLeft)
    const outcome = search.run()
    stepsLeft -= search.stepCount
    const stepCount = stepCountMax - stepsLeft
    if (outcome === 'violation') return { kind: outcome, stepCount, ...search.longest }
    if (outcome === 'undecided') isUndecided = true
  }
  return { kind: isUndecided ? 'undecided' : 'linearizable', stepCount: stepCountMax - stepsLeft }
}

/** For the message of a failed test. */
export function describeVerdict<Input, Output>(verdict: Verdict<Input, Output>): string {
  if (verdict.kind !== 'violation') return `${verdict.kind} after ${verdict.stepCount} steps`
  const line = ({ client, input, output, calledAt, returnedAt }: HistoryOperation<Input, Output>) =>
    `  [${calledAt}, ${returnedAt ?? '?'}] ${client} ${JSON.stringify(input)} -> ${JSON.stringify(output)}`
  const stuck = verdict.stuck === null ? [] : ['and then this one cannot have happened:', line(verdict.stuck)]
  const order = verdict.order.slice(-30).map(line)
  return ['not linearizable; the longest order ends with', ...order, ...stuck].join('\n')
}

function partitions<State, Input, Output>(
  history: readonly HistoryOperation<Input, Output>[],
  model: SequentialModel<State, Input, Output>,
): Map<string, HistoryOperation<Input, Output>[]> {
  const parts = new Map<string, HistoryOperation<Input, Output>[]>()
  for (const operation of history) {
    const name = model.partition?.(operation.input) ?? ''
    const part = parts.get(name)
    if (part === undefined) parts.set(name, [operation])
    else part.push(operation)
  }
  return parts
}

/** A known operation, with its places in the order of all calls and returns. */
interface Known<Input, Output> {
  readonly operation: HistoryOperation<Input, Output>
  readonly calledAt: number
  readonly returnedAt: number
}

interface Lost<Input, Output> {
  readonly bit: bigint
  readonly calledAt: number
  readonly operation: HistoryOperation<Input, Output>
}

/** Some operations happened, and this is the state then. */
interface Place<State, Input, Output> {
  /** Known operations before this one have all happened. */
  readonly first: number
  /** Of those from `first` on: bit 0 is `first` itself, and not set. */
  readonly taken: bigint
  readonly lost: bigint
  readonly lostCount: number
  readonly depth: number
  readonly states: readonly State[]
  readonly statesKey: string
  readonly operation: HistoryOperation<Input, Output> | null
  readonly parent: Place<State, Input, Output> | null
}

/**
 * Depth first among places with equally many lost operations, fewest first: of two ways to the same known
 * operations and state, the one whose lost operations are among those of the other is at least as good.
 */
class Search<State, Input, Output> {
  readonly #model: SequentialModel<State, Input, Output>
  readonly #stepCountMax: number
  readonly #known: readonly Known<Input, Output>[]
  readonly #lost: readonly Lost<Input, Output>[]
  /** By known operations and state: the sets of lost operations that led there. */
  readonly #seen = new Map<string, bigint[]>()
  /** Places to go on from, by their number of lost operations. */
  readonly #waiting: Place<State, Input, Output>[][] = []
  #longest: Place<State, Input, Output>
  #stuck: HistoryOperation<Input, Output> | null = null
  stepCount = 0

  constructor(
    history: readonly HistoryOperation<Input, Output>[],
    model: SequentialModel<State, Input, Output>,
    stepCountMax: number,
  ) {
    this.#model = model
    this.#stepCountMax = stepCountMax
    const { known, lost } = inOrder(history)
    this.#known = known
    this.#lost = lost
    const states = [model.initial()]
    const start = { first: 0, taken: 0n, lost: 0n, lostCount: 0, depth: 0, operation: null, parent: null }
    this.#longest = { ...start, states, statesKey: this.#keyOf(states) }
    this.#waiting.push([this.#longest])
  }

  run(): 'linearizable' | 'violation' | 'undecided' {
    for (let place = this.#next(); place !== undefined; place = this.#next()) {
      if (place.first === this.#known.length) return 'linearizable'
      if (this.stepCount >= this.#stepCountMax) return 'undecided'
      this.#goOn(place)
    }
    return 'violation'
  }

  get longest(): { order: HistoryOperation<Input, Output>[]; stuck: HistoryOperation<Input, Output> | null } {
    const order: HistoryOperation<Input, Output>[] = []
    for (let place = this.#longest; place.parent !== null && place.operation !== null; place = place.parent) {
      order.push(place.operation)
    }
    return { order: order.toReversed(), stuck: this.#stuck }
  }

  #next(): Place<State, Input, Output> | undefined {
    return this.#waiting.find((places) => places.length > 0)?.pop()
  }

  /** Every operation that may come next: none that was called after another one had to be over. */
  #goOn(place: Place<State, Input, Output>): void {
    const { first, taken } = place
    let limit = Number.POSITIVE_INFINITY
    let soonest = first
    const candidates: number[] = []
    for (let index = first; index < this.#known.length; index++) {
      const { calledAt, returnedAt } = this.#known[index] as Known<Input, Output>
      if (calledAt > limit) break
      if (((taken >> BigInt(index - first)) & 1n) === 1n) continue
      candidates.push(index)
      if (returnedAt < limit) [limit, soonest] = [returnedAt, index]
    }
    if (place.depth >= this.#longest.depth) {
      this.#longest = place
      this.#stuck = this.#known[soonest]?.operation ?? null
    }
    for (const lost of this.#lost) {
      if (lost.calledAt > limit) break
      if ((place.lost & lost.bit) === 0n) this.#takeLost(place, lost)
    }
    // The last one is looked at first: the oldest call.
    for (const index of candidates.toReversed()) this.#takeKnown(place, index)
  }

  #takeKnown(place: Place<State, Input, Output>, index: number): void {
    const { operation } = this.#known[index] as Known<Input, Output>
    const states = this.#statesAfter(place, operation.input, operation.output)
    if (states === null) return
    let { first } = place
    let taken = place.taken | (1n << BigInt(index - first))
    while ((taken & 1n) === 1n) {
      taken >>= 1n
      first += 1
    }
    this.#wait({ ...place, first, taken, operation, states, statesKey: this.#keyOf(states), parent: place })
  }

  #takeLost(place: Place<State, Input, Output>, { bit, operation }: Lost<Input, Output>): void {
    const states = this.#statesAfter(place, operation.input, undefined)
    if (states === null) return
    const statesKey = this.#keyOf(states)
    // It need not have happened; where it changes nothing, that is the same.
    if (statesKey === place.statesKey) return
    const { lost, lostCount } = place
    const taken = { lost: lost | bit, lostCount: lostCount + 1 }
    this.#wait({ ...place, ...taken, operation, states, statesKey, parent: place })
  }

  #wait(place: Place<State, Input, Output>): void {
    const name = `${place.first} ${place.taken.toString(36)} ${place.statesKey}`
    const sets = this.#seen.get(name) ?? []
    if (sets.some((set) => (set & ~place.lost) === 0n)) return
    sets.push(place.lost)
    this.#seen.set(name, sets)
    while (this.#waiting.length <= place.lostCount) this.#waiting.push([])
    this.#waiting[place.lostCount]?.push({ ...place, depth: place.depth + 1 })
  }

  #statesAfter(place: Place<State, Input, Output>, input: Input, output: Output | undefined): State[] | null {
    this.stepCount += 1
    const states = place.states.flatMap((state) => this.#model.step(state, input, output))
    if (states.length === 0) return null
    if (states.length === 1) return states
    return [...new Map(states.map((state) => [this.#model.key(state), state])).values()]
  }

  #keyOf(states: readonly State[]): string {
    return states
      .map((state) => this.#model.key(state))
      .toSorted((left, right) => (left < right ? -1 : 1))
      .join(' | ')
  }
}

/** By their calls. At equal times calls come before returns, so that those operations are concurrent. */
function inOrder<Input, Output>(
  history: readonly HistoryOperation<Input, Output>[],
): { known: Known<Input, Output>[]; lost: Lost<Input, Output>[] } {
  const known: Known<Input, Output>[] = []
  const lost: Lost<Input, Output>[] = []
  for (const operation of history.toSorted((left, right) => left.calledAt - right.calledAt)) {
    const { calledAt, returnedAt } = operation
    if (returnedAt === null) lost.push({ bit: 1n << BigInt(lost.length), calledAt, operation })
    else if (returnedAt >= calledAt) known.push({ operation, calledAt, returnedAt })
    else throw new Error('an operation returned before it was called')
  }
  return { known, lost }
}
