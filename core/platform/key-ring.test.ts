/** Versions of the cluster key, and the file they lie in: form, mode, replacement. */
import { deepEqual, equal, match, ok, throws } from 'node:assert/strict'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { test, type TestContext } from 'node:test'
import { CairnError } from '../base/errors.ts'
import { formatKeyRing, KeyRing, parseKeyRing } from './key-ring.ts'
import { silentLogger } from './logger.ts'
import { FileKeyStore, KEY_FILE, writeKeyFile } from './node/key-file.ts'

const UUID = '0123456789abcdef0123456789abcdef'
const keyOf = (fill: number): Buffer => Buffer.alloc(32, fill)
const ringOf = (...versions: number[]): KeyRing =>
  new KeyRing(
    UUID,
    versions.map((version) => [version, keyOf(version)]),
  )
const hasCode = (code: string) => (error: unknown) => error instanceof CairnError && error.code === code

function keyFile(t: TestContext): string {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cairn-key-'))
  t.after(() => fs.rmSync(directory, { recursive: true }))
  return path.join(directory, 'clusters', 'demo', KEY_FILE)
}

test('the text of format 1 does not change', () => {
  const golden = [
    '# Cairn cluster key. Whoever can read this file is part of the cluster: keep it secret.',
    'cairn-key 1',
    `cluster ${UUID}`,
    `key 1 ${'01'.repeat(32)}`,
    `key 2 ${'02'.repeat(32)}`,
    '',
  ].join('\n')
  equal(formatKeyRing(ringOf(2, 1)), golden)
  deepEqual(parseKeyRing(golden).versions, [1, 2])
  deepEqual(parseKeyRing(golden).get(2), keyOf(2))
})

test('any other text is BAD_CONFIG, and is not repeated in the message', () => {
  const good = formatKeyRing(ringOf(1))
  const bad = [
    '',
    good.replace('cairn-key 1', 'cairn-key 2'),
    good.replace(UUID, 'xyz'),
    good.replace('key 1', 'key 0'),
    good.replace('0101', '01'),
    good.replace(`key 1 ${'01'.repeat(32)}`, ''),
    `${good}key 2 secret`,
    formatKeyRing(ringOf(1, 2)).replace('key 2', 'key 1'),
    formatKeyRing(ringOf(1, 2)) + formatKeyRing(ringOf(3)).split('\n')[3],
  ]
  for (const text of bad) throws(() => parseKeyRing(text), hasCode('BAD_CONFIG'))
  for (const text of bad)
    throws(
      () => parseKeyRing(text),
      (error: Error) => !/0101|secret/.test(error.message),
    )
})

test('a ring has two versions at most; a version keeps its key', () => {
  const ring = ringOf(1).with(2, keyOf(2))
  deepEqual(ring.versions, [1, 2])
  deepEqual(ring.with(3, keyOf(3)).versions, [2, 3])
  equal(ring.with(2, keyOf(9)), ring)
  equal(ringOf(2).with(1, keyOf(1)).versions.join(), '2')
  deepEqual(ring.from(2).versions, [2])
  equal(ring.from(1), ring)
  equal(ring.from(9), ring, 'never without a key')
})

test('the file is written with mode 0600 and read again when another process replaced it', (t) => {
  const file = keyFile(t)
  const keys = new FileKeyStore(file, 'demo', silentLogger)
  throws(() => keys.current(), hasCode('KEY_MISSING'))
  writeKeyFile(file, ringOf(1))
  equal(fs.statSync(file).mode & 0o777, 0o600)
  const ring = keys.current()
  deepEqual(ring.versions, [1])
  equal(keys.current(), ring, 'not read again while it is the same')
  let changes = 0
  const unsubscribe = keys.onChange(() => changes++)
  const other = new FileKeyStore(file, 'demo', silentLogger)
  other.replace(other.current().with(2, keyOf(2)))
  deepEqual(keys.current().versions, [1, 2])
  equal(changes, 1)
  keys.replace(keys.current().from(2))
  equal(changes, 2)
  deepEqual(other.current().versions, [2])
  unsubscribe()
  deepEqual(fs.readdirSync(path.dirname(file)), [KEY_FILE])
})

test('a file that others may read is refused with the way out; a process that runs goes on', (t) => {
  const file = keyFile(t)
  writeKeyFile(file, ringOf(1))
  const running = new FileKeyStore(file, 'demo', silentLogger)
  running.current()
  for (const mode of [0o644, 0o640, 0o602, 0o660]) {
    fs.chmodSync(file, mode)
    throws(
      () => new FileKeyStore(file, 'demo', silentLogger).current(),
      (error: unknown) => {
        ok(error instanceof CairnError)
        equal(error.code, 'KEY_UNPROTECTED')
        match(error.next ?? '', /chmod 600 .*passwd --rotate-key/)
        return true
      },
    )
    deepEqual(running.current().versions, [1])
  }
  fs.rmSync(file)
  deepEqual(running.current().versions, [1])
})
