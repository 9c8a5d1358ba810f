/**
 * The reference model of one directory that all clients change. The workload never has two operations on
 * one name under way, so each name holds exactly one file or none, except after an operation whose outcome
 * nobody knows (its client died, or its session expired while it was asked): then either is right, and the
 * name is left alone until `settle`, when the first look decides.
 */

/** The name of the file model behind a name, or null: there is nothing. */
export type Occupant = string | null

interface Entry {
  possible: Occupant[]
  isBusy: boolean
  isUnknown: boolean
}

export class NamespaceModel {
  readonly #entries = new Map<string, Entry>()

  constructor(names: readonly string[]) {
    for (const name of names) this.#entries.set(name, { possible: [null], isBusy: false, isUnknown: false })
  }

  get names(): string[] {
    return [...this.#entries.keys()]
  }

  /** Names nobody works on and whose state is known. */
  freeNames(): string[] {
    return [...this.#entries].filter(([, entry]) => !entry.isBusy && !entry.isUnknown).map(([name]) => name)
  }

  occupant(name: string): Occupant {
    return this.#entry(name).possible[0] ?? null
  }

  possible(name: string): readonly Occupant[] {
    return this.#entry(name).possible
  }

  isKnown(name: string): boolean {
    return !this.#entry(name).isUnknown
  }

  take(...names: string[]): void {
    for (const name of names) this.#entry(name).isBusy = true
  }

  giveBack(...names: string[]): void {
    for (const name of names) this.#entry(name).isBusy = false
  }

  /** The operation was answered. */
  set(name: string, occupant: Occupant): void {
    const entry = this.#entry(name)
    entry.possible = [occupant]
  }

  /** Nobody knows whether it happened. */
  unknown(name: string, after: Occupant): void {
    const entry = this.#entry(name)
    entry.isUnknown = true
    if (!entry.possible.includes(after)) entry.possible.push(after)
  }

  #entry(name: string): Entry {
    const entry = this.#entries.get(name)
    if (entry === undefined) throw new Error(`the workload knows no name ${name}`)
    return entry
  }
}
