/** The model of names accepts what a file system may answer, and nothing else. */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import {
  checkLinearizability,
  type HistoryOperation,
} from '../../core/testing/linearizability/linearizability.ts'
import { type NamesInput, namesModel, type NamesOutput } from './names-model.ts'

const directory = 'd'
type Step = readonly [input: NamesInput, output: NamesOutput]

function verdictOf(steps: readonly Step[]): string {
  const history = steps.map(([input, output], index): HistoryOperation<NamesInput, NamesOutput> => {
    return { client: 'one', input, output, calledAt: index * 2, returnedAt: index * 2 + 1 }
  })
  return checkLinearizability(history, namesModel).kind
}

const create: Step = [{ kind: 'create', directory, name: 'a' }, { inode: 7 }]
const move: Step = [{ kind: 'rename', directory, name: 'a', to: 'b', replaces: false }, 'done']
const list: Step = [{ kind: 'list', directory }, { entries: [['b', 7]] }]

it('accepts a file that is created, renamed, listed and removed', () => {
  const steps: Step[] = [
    [{ kind: 'look', directory, name: 'a' }, { error: 'ENOENT' }],
    create,
    [create[0], { error: 'EEXIST' }],
    move,
    list,
    [{ kind: 'remove', directory, name: 'b' }, 'done'],
    [{ kind: 'list', directory }, { entries: [] }],
  ]
  assert.equal(verdictOf(steps), 'linearizable')
})

it('finds an acknowledged create that is lost, one that was done twice, and another file behind a name', () => {
  const lost: Step[] = [create, [{ kind: 'look', directory, name: 'a' }, { error: 'ENOENT' }]]
  const twice: Step[] = [create, create]
  const other: Step[] = [create, [{ kind: 'look', directory, name: 'a' }, { inode: 8 }]]
  const undone: Step[] = [create, move, [{ kind: 'list', directory }, { entries: [['a', 7]] }]]
  for (const steps of [lost, twice, other, undone]) assert.equal(verdictOf(steps), 'violation')
})

it('an answer that never came may have happened', () => {
  const unknown: HistoryOperation<NamesInput, NamesOutput> = {
    ...{ client: 'one', input: create[0], calledAt: 0, returnedAt: null },
  }
  for (const output of [{ inode: 9 }, { error: 'ENOENT' }] as const) {
    const look = { ...unknown, input: { kind: 'look', directory, name: 'a' } as const, output, returnedAt: 2 }
    assert.equal(checkLinearizability([unknown, { ...look, calledAt: 1 }], namesModel).kind, 'linearizable')
  }
})
