/**
 * Sequential models for the linearizability checker: a register with compare-and-set for each key, and a
 * small map with transactions, revisions and keys that end with their owner. Both are written from what is
 * promised to clients (client/api.ts), not from how it is done.
 */
import type { SequentialModel } from './linearizability.ts'

export type RegisterInput =
  | { readonly kind: 'read'; readonly key: string }
  | { readonly kind: 'write'; readonly key: string; readonly value: string | null }
  | {
      readonly kind: 'compare-and-set'
      readonly key: string
      readonly expected: string | null
      readonly value: string | null
    }
/** What was read; for compare-and-set whether it happened; for a write anything. */
export type RegisterOutput = string | null | boolean

/** Null: nothing there. */
export const registerModel: SequentialModel<string | null, RegisterInput, RegisterOutput> = {
  initial: () => null,
  step(state, input, output) {
    switch (input.kind) {
      case 'read':
        return output === undefined || output === state ? [state] : []
      case 'write':
        return [input.value]
      case 'compare-and-set': {
        const isEqual = state === input.expected
        if (output !== undefined && output !== isEqual) return []
        return [isEqual ? input.value : state]
      }
    }
  },
  key: (state) => JSON.stringify(state),
  partition: ({ key }) => key,
}

export type MapExpectation = 'absent' | { readonly revision: number } | { readonly value: string }

export type MapInput =
  | { readonly kind: 'get'; readonly key: string }
  | { readonly kind: 'list'; readonly prefix: string }
  | {
      readonly kind: 'transact'
      readonly guards: readonly { readonly key: string; readonly expected: MapExpectation }[]
      /** `owner`: the key ends with it. */
      readonly writes: readonly {
        readonly key: string
        readonly value: string | null
        readonly owner?: string
      }[]
    }
  /** Every key of this owner is deleted. */
  | { readonly kind: 'end'; readonly owner: string }

export interface MapEntry {
  readonly key: string
  readonly value: string
  readonly revision: number
}

export interface MapOutput {
  /** Of get and list. */
  readonly entries?: readonly MapEntry[]
  /** Of list and transact: that of the state that was read, or of the change. */
  readonly revision?: number
  /** Of transact; missing: it succeeded. */
  readonly failed?: {
    readonly guard: number
    readonly value: string | null
    readonly present: readonly number[]
  }
}

interface Row {
  readonly value: string
  /** Null: its writer never heard it. Known as soon as somebody is told. */
  readonly revision: number | null
  readonly owner: string
}

interface MapState {
  readonly rows: ReadonlyMap<string, Row>
  /** Revisions only rise; a state that was read later is no older. */
  readonly lastRevision: number
}

export const mapModel: SequentialModel<MapState, MapInput, MapOutput> = {
  initial: () => ({ rows: new Map(), lastRevision: 0 }),
  step(state, input, output) {
    const next = stepMap(state, input, output)
    return next === null ? [] : [next]
  },
  key({ rows, lastRevision }) {
    const sorted = [...rows].toSorted(([left], [right]) => (left < right ? -1 : 1))
    return JSON.stringify([
      lastRevision,
      ...sorted.map(([key, row]) => [key, row.value, row.revision, row.owner]),
    ])
  },
}

function stepMap(state: MapState, input: MapInput, output: MapOutput | undefined): MapState | null {
  switch (input.kind) {
    case 'get':
      return output === undefined ? state : seen(state, [input.key], output.entries ?? [])
    case 'list': {
      if (output === undefined) return state
      const { revision = 0, entries = [] } = output
      if (revision < state.lastRevision) return null
      const keys = [...state.rows.keys()].filter((key) => key.startsWith(input.prefix))
      const known = seen(state, keys, entries)
      return known === null ? null : { ...known, lastRevision: revision }
    }
    case 'transact':
      return output === undefined ? unheardTransaction(state, input) : transaction(state, input, output)
    case 'end': {
      const rows = [...state.rows].filter(([, { owner }]) => owner !== input.owner)
      return { ...state, rows: new Map(rows) }
    }
  }
}

/** The state in which exactly these of `keys` are there, or null. */
function seen(state: MapState, keys: readonly string[], entries: readonly MapEntry[]): MapState | null {
  let known: MapState | null = state
  const found = new Set<string>()
  for (const { key, value, revision } of entries) {
    if (known?.rows.get(key)?.value !== value) return null
    known = revealed(known, key, revision)
    found.add(key)
  }
  return keys.some((key) => state.rows.has(key) && !found.has(key)) ? null : known
}

/** Somebody was told that the key has this revision (0: that it is absent). */
function revealed(state: MapState, key: string, revision: number): MapState | null {
  const row = state.rows.get(key)
  if (row === undefined) return revision === 0 ? state : null
  if (row.revision !== null) return row.revision === revision ? state : null
  if (revision === 0) return null
  return { ...state, rows: new Map(state.rows).set(key, { ...row, revision }) }
}

type Transact = Extract<MapInput, { kind: 'transact' }>

function transaction(state: MapState, input: Transact, output: MapOutput): MapState | null {
  const { revision = 0, failed } = output
  if (revision <= state.lastRevision) return null
  if (failed === undefined) {
    const held = afterGuards(state, input.guards)
    return held === null ? null : written(held, input, revision)
  }
  let known: MapState | null = { ...state, lastRevision: revision }
  for (const [index, { key }] of input.guards.entries()) {
    known = known === null ? null : revealed(known, key, failed.present[index] ?? 0)
  }
  if (known === null) return null
  const guard = input.guards[failed.guard]
  if (guard === undefined || (known.rows.get(guard.key)?.value ?? null) !== failed.value) return null
  if (afterGuards(known, [guard]) !== null) return null
  return afterGuards(known, input.guards.slice(0, failed.guard))
}

/** It happened as far as it could; a guard of a revision nobody was told may have held. */
function unheardTransaction(state: MapState, input: Transact): MapState {
  const held = afterGuards(state, input.guards)
  return held === null ? state : written(held, input, null)
}

/** With what the guards say of revisions; null: one does not hold. */
function afterGuards(state: MapState, guards: Transact['guards']): MapState | null {
  let known: MapState | null = state
  for (const { key, expected } of guards) {
    if (known === null) return null
    if (expected === 'absent') known = known.rows.has(key) ? null : known
    else if ('value' in expected) known = known.rows.get(key)?.value === expected.value ? known : null
    else known = revealed(known, key, expected.revision)
  }
  return known
}

function written(state: MapState, { writes }: Transact, revision: number | null): MapState {
  const rows = new Map(state.rows)
  for (const { key, value, owner = '' } of writes) {
    if (value === null) rows.delete(key)
    else rows.set(key, { value, revision, owner })
  }
  return { rows, lastRevision: revision ?? state.lastRevision }
}
