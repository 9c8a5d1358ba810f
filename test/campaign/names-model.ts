/**
 * The names of one directory as a sequential model for the linearizability checker: which name stands for which
 * inode. Written from what a file system promises, not from how it is done.
 */
import type { SequentialModel } from '../../core/testing/linearizability/linearizability.ts'

export type NamesInput = { readonly directory: string } & (
  | { readonly kind: 'create' | 'remove' | 'look'; readonly name: string }
  | { readonly kind: 'rename'; readonly name: string; readonly to: string; readonly replaces: boolean }
  | { readonly kind: 'list' }
)

export type NamesOutput =
  | { readonly error: 'ENOENT' | 'EEXIST' }
  /** Of create and look. */
  | { readonly inode: number }
  | { readonly entries: readonly (readonly [name: string, inode: number])[] }
  /** Of remove and rename. */
  | 'done'

/** Null: its creator never heard the number. */
type Names = ReadonlyMap<string, number | null>

export const namesModel: SequentialModel<Names, NamesInput, NamesOutput> = {
  initial: () => new Map(),
  step(names, input, output) {
    const next = step(names, input, output)
    return next === null ? [] : [next]
  },
  key: (names) => JSON.stringify([...names].toSorted(([left], [right]) => (left < right ? -1 : 1))),
  partition: ({ directory }) => directory,
}

function step(names: Names, input: NamesInput, output: NamesOutput | undefined): Names | null {
  switch (input.kind) {
    case 'create': {
      if (names.has(input.name)) return refused(names, output, 'EEXIST')
      if (output === undefined) return new Map(names).set(input.name, null)
      return isInode(output) ? new Map(names).set(input.name, output.inode) : null
    }
    case 'look': {
      if (!names.has(input.name)) return refused(names, output, 'ENOENT')
      if (output === undefined) return names
      return isInode(output) ? revealed(names, input.name, output.inode) : null
    }
    case 'remove': {
      if (!names.has(input.name)) return refused(names, output, 'ENOENT')
      return isDone(output) ? without(names, input.name) : null
    }
    case 'rename': {
      const inode = names.get(input.name)
      if (inode === undefined) return refused(names, output, 'ENOENT')
      if (names.has(input.to) && !input.replaces) return refused(names, output, 'EEXIST')
      return isDone(output) ? new Map(without(names, input.name)).set(input.to, inode) : null
    }
    case 'list':
      return output === undefined ? names : listed(names, output)
  }
}

function refused(names: Names, output: NamesOutput | undefined, code: string): Names | null {
  if (output === undefined) return names
  return typeof output === 'object' && 'error' in output && output.error === code ? names : null
}

function isInode(output: NamesOutput): output is { readonly inode: number } {
  return typeof output === 'object' && 'inode' in output
}

function isDone(output: NamesOutput | undefined): boolean {
  return output === undefined || output === 'done'
}

function without(names: Names, name: string): Names {
  const rest = new Map(names)
  rest.delete(name)
  return rest
}

/** Somebody was told that the name stands for this inode. */
function revealed(names: Names, name: string, inode: number): Names | null {
  const known = names.get(name)
  if (known === inode) return names
  return known === null ? new Map(names).set(name, inode) : null
}

function listed(names: Names, output: NamesOutput): Names | null {
  if (typeof output !== 'object' || !('entries' in output) || output.entries.length !== names.size)
    return null
  let known: Names | null = names
  for (const [name, inode] of output.entries) {
    if (known === null || !known.has(name)) return null
    known = revealed(known, name, inode)
  }
  return known
}
