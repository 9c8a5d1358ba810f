// Proves the file of mds backup: the golden one is read and written byte for byte, it may come in any pieces, and
// damage anywhere in it, or an end that is missing, is found.

import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { BackupDecoder, BackupEncoder, type BackupHeader } from './backup-format.ts'

const golden = new URL('testdata/backup-1.bin', import.meta.url)
const header: BackupHeader = {
  cluster: 'demo',
  clusterUuid: '0123456789abcdef0123456789abcdef',
  index: 4_711,
  term: 12,
  generation: 0,
  timeMs: 1_700_000_000_000,
}
const pieces = [Buffer.from('the first piece of a store'), Buffer.alloc(300, 7), Buffer.from([0])]

function encoded(): Buffer {
  const encoder = new BackupEncoder()
  const bytes = [encoder.header(header)]
  for (const piece of pieces) bytes.push(encoder.piece(piece), piece)
  return Buffer.concat([...bytes, encoder.end()])
}

function decoded(parts: Iterable<Buffer>): { header: BackupHeader; bytes: Buffer } {
  const decoder = new BackupDecoder()
  const found: Buffer[] = []
  for (const part of parts) for (const piece of decoder.push(part)) found.push(Buffer.from(piece))
  return { header: decoder.finish(), bytes: Buffer.concat(found) }
}

if (process.env['UPDATE_GOLDEN'] !== undefined) writeFileSync(golden, encoded())

test('today writes the golden file, and reads it in pieces of any size', () => {
  const bytes = readFileSync(golden)
  assert.deepEqual(encoded(), bytes)
  for (const size of [1, 3, 16, 1_000_000]) {
    const parts: Buffer[] = []
    for (let at = 0; at < bytes.length; at += size) parts.push(bytes.subarray(at, at + size))
    assert.deepEqual(decoded(parts), { header, bytes: Buffer.concat(pieces) }, `pieces of ${size}`)
  }
})

test('a byte that is not what it was, one that is missing, and one too many are found', () => {
  const bytes = encoded()
  for (let at = 0; at < bytes.length; at++) {
    const damaged = Buffer.from(bytes)
    damaged[at] = (damaged[at] ?? 0) ^ 0x40
    assert.throws(() => decoded([damaged]), { code: /BACKUP_DAMAGED|STORE_FORMAT/ }, `byte ${at}`)
    assert.throws(() => decoded([bytes.subarray(0, at)]), { code: 'BACKUP_DAMAGED' }, `cut at ${at}`)
  }
  assert.throws(() => decoded([bytes, Buffer.from([0])]), { code: 'BACKUP_DAMAGED' })
})

test('a piece in the place of another is found', () => {
  const encoder = new BackupEncoder()
  const head = encoder.header(header)
  const [one, two] = pieces.map((piece) => Buffer.concat([encoder.piece(piece), piece])) as [Buffer, Buffer]
  assert.throws(() => decoded([head, two, one, encoder.end()]), { code: 'BACKUP_DAMAGED' })
})
