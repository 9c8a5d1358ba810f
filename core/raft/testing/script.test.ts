/** Proves the rules of consensus one by one: each trace of testdata tells one story and checks its outcome. */
import { ok, throws } from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import type { RaftFaults } from '../index.ts'
import { Script } from './script.ts'

const directory = join(import.meta.dirname, '../testdata')
const names = readdirSync(directory).filter((name) => name.endsWith('.txt'))

for (const name of names)
  test(`trace ${name.replace('.txt', '')}`, () => {
    const commandCount = new Script().run(readFileSync(join(directory, name), 'utf8'))
    ok(commandCount >= 5, 'a trace does something')
  })

test('there are traces', () => ok(names.length >= 15, `${names.length} traces`))

test('a wrong expectation fails, with its line', () => {
  throws(
    () => new Script().run('cluster 3\n\nexpect 1 role=leader'),
    /line 3: expect 1 role=leader\n {2}it is role=follower/,
  )
})

const faults: readonly (keyof RaftFaults)[] = [
  'voteTwice',
  'forgetHardState',
  'skipCurrentTermRule',
  'readWithoutLease',
  'applyOutOfOrder',
  'keepLeaseInTransfer',
  'voteAfterRestart',
  'acknowledgeEarly',
]

for (const fault of faults)
  test(`a member with the planted bug ${fault} fails a trace`, () => {
    const failed = names.filter((name) => {
      try {
        new Script({ [fault]: true }).run(readFileSync(join(directory, name), 'utf8'))
        return false
      } catch {
        return true
      }
    })
    ok(failed.length > 0 && failed.length < names.length, failed.join(', '))
  })
