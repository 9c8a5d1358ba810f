/** What the quorum remembers: sealed, and of use only to who has the key. */
import { deepEqual, equal, throws } from 'node:assert/strict'
import { test } from 'node:test'
import { codeOf } from '../../base/errors.ts'
import { KeyRing } from '../../platform/key-ring.ts'
import { SeededRandom } from '../../testing/simulation/seeded-random.ts'
import {
  type AuthenticationRecord,
  openVerifier,
  readAuthentication,
  ringOf,
  sealUpdate,
  sealVerifier,
} from './record.ts'

const UUID = 'c'.repeat(32)
const random = new SeededRandom(1)
const ringWith = (...versions: number[]): KeyRing =>
  new KeyRing(
    UUID,
    versions.map((version) => [version, Buffer.alloc(32, version)]),
  )
const verifier = { setup: 'the set-up of the server', record: 'the record of the password' }
const hasCode = (code: string) => (error: unknown) => codeOf(error) === code

function rotated(): AuthenticationRecord {
  return {
    version: 2,
    oldest: 1,
    verifier: sealVerifier(verifier, 2, ringWith(1, 2), random),
    update: sealUpdate(Buffer.alloc(32, 2), 2, 1, ringWith(1), random),
    retireAtMs: 1000,
  }
}

test('the verifier opens with the key it was sealed with, and with no other', () => {
  const record = { version: 1, oldest: 1, verifier: sealVerifier(verifier, 1, ringWith(1), random) }
  deepEqual(openVerifier(record, ringWith(1)), verifier)
  equal(Buffer.from(record.verifier, 'base64').includes('password'), false)
  throws(() => openVerifier(record, new KeyRing(UUID, [[1, Buffer.alloc(32, 9)]])), hasCode('WRONG_KEY'))
  throws(
    () => openVerifier(record, new KeyRing('d'.repeat(32), [[1, Buffer.alloc(32, 1)]])),
    hasCode('WRONG_KEY'),
  )
  throws(() => openVerifier({ ...record, version: 2 }, ringWith(1)), hasCode('KEY_RETIRED'))
})

test('a metadata server with the old key finds the new one in the record', () => {
  const ring = ringOf(rotated(), ringWith(1))
  deepEqual(ring.versions, [1, 2])
  deepEqual(openVerifier(rotated(), ring), verifier)
  equal(ringOf(rotated(), ring), ring)
})

test('when the old version has ended it is dropped; a server that has nothing newer cannot start', () => {
  const { version, verifier: sealed } = rotated()
  const ended = { version, oldest: version, verifier: sealed }
  deepEqual(ringOf(ended, ringWith(1, 2)).versions, [2])
  throws(() => ringOf(ended, ringWith(1)), hasCode('KEY_RETIRED'))
})

test('what is stored is checked when it is read', () => {
  const stored = (value: string) => readAuthentication(new Map([['cluster.authentication', value]]))
  deepEqual(readAuthentication(new Map()), { revision: 0, record: null })
  deepEqual(stored(JSON.stringify(rotated())).record?.version, 2)
  for (const text of ['', '{}', '[]', '{"version":-1,"oldest":1,"verifier":""}'])
    throws(() => stored(text), hasCode('STATE_FORMAT'))
})
