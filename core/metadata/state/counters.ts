/** The numbers the state hands out. They only rise, so that no id is ever used twice (rule G1). */
import { assert } from '../../base/assert.ts'
import type { RowChange } from '../../platform/store.ts'
import { metadataError } from '../errors.ts'
import type { ChangeTracked } from './table.ts'

const initialValues = {
  nextInode: 2,
  nextChunk: 1,
  nextServer: 1,
  nextSession: 1,
  nextEvent: 1,
  /** Milliseconds of log time (rule L11); advanced by ticks only. */
  logTimeMs: 0,
}
export type CounterName = keyof typeof initialValues
const counterNames = Object.keys(initialValues) as CounterName[]

export class Counters implements ChangeTracked {
  readonly name = 'counters'
  private readonly values: Record<CounterName, number> = { ...initialValues }
  private readonly dirty = new Set<CounterName>()

  get(name: CounterName): number {
    return this.values[name]
  }

  /** Hands out `count` numbers and returns the first. */
  take(name: CounterName, count = 1): number {
    const first = this.values[name]
    this.raiseTo(name, first + count)
    return first
  }

  raiseTo(name: CounterName, value: number): void {
    assert(Number.isSafeInteger(value) && value >= this.values[name], `counter ${name} must rise`)
    this.values[name] = value
    this.dirty.add(name)
  }

  loadRow(key: string, value: string): void {
    const name = counterNames.find((known) => known === key)
    const number = Number(value)
    if (name === undefined || !Number.isSafeInteger(number) || number < 0) {
      throw metadataError('ROW_CORRUPT', `${this.name}/${key}`)
    }
    this.values[name] = number
  }

  get changedCount(): number {
    return this.dirty.size
  }

  collectChanges(into: RowChange[]): void {
    for (const name of this.dirty) {
      into.push({ table: this.name, key: name, value: String(this.values[name]) })
    }
    this.dirty.clear()
  }

  *rows(): Iterable<readonly [string, string]> {
    for (const name of counterNames) yield [name, String(this.values[name])]
  }
}
