// Proves that the table of feature levels is complete and that what an older version knew is never changed: every
// command, and every field of one, that came after level 1 is named with its level.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { crc32c } from '@node-rs/crc32'
import { decodeLogEntry, encodeLogEntry } from '../log/codec.ts'
import type { CommandOf, CommandType } from './apply.ts'
import type { Command, LogCommand } from './commands.ts'
import {
  BASE_LEVEL,
  commandLevels,
  fieldLevels,
  HIGHEST_LEVEL,
  levelOf,
  parseFormat,
  withoutFieldsAbove,
} from './feature-levels.ts'

/** Commands of level 1 with their fields, as its version had them. Nothing is ever added here. */
const firstLevel = {
  'fs.setattr':
    'inode mode uid gid accessSeconds accessNanoseconds accessNow modifySeconds modifyNanoseconds modifyNow',
  'fs.create': 'parent name mode uid gid exclusive lease',
  'fs.mknod': 'fileType parent name mode uid gid device',
  'fs.symlink': 'parent name target uid gid',
  'fs.link': 'inode parent name',
  'fs.unlink': 'parent name',
  'fs.rmdir': 'parent name',
  'fs.rename': 'parent name newParent newName mode',
  'fs.setxattr': 'inode name value mode',
  'fs.removexattr': 'inode name',
  'attr.set': 'inode recursive attributes',
  'lease.acquire': 'inode pinned',
  'lease.update': 'inode lease size modifySeconds modifyNanoseconds',
  'lease.release': 'inode lease size modifySeconds modifyNanoseconds',
  'lease.truncate': 'inode lease size',
  'lease.zeroed': 'inode lease zeroFrom',
  'lease.unmap': 'inode lease indexes',
  'admin.setConfig': 'key value',
  'kv.transact': 'namespace guards writes',
  'cluster.create': 'name uuid placement',
  'authentication.set': 'revision value',
  'session.open': 'name host kind secret',
  'session.expire': 'session clean',
  'chunk.reserve': 'count',
  'chunk.create': 'lease inode chunks',
  'intent.grant': 'lease inode chunks sizeLimit',
  'intent.clear': 'lease inode chunks',
  'epoch.propose': 'epochs',
  'epoch.activate': 'epochs',
  'join.complete': 'joins',
  'file.recoverSize': 'inode size chunk version',
  'file.collect': 'inodes',
  'replica.condemn': 'replicas',
  'replica.deleted': 'replicas',
  'replica.former': 'replicas',
  'server.register':
    'server storeUuid registration incarnation crashes hostId hostName location tier host port totalBytes checksums',
  'server.state': 'server state',
  'mds.add': 'host port name',
  'mds.member': 'member host port name',
  'mds.state': 'member state',
  'event.record': 'system severity code message',
  tick: 'elapsedMs',
} as const

// The compiler compares: a field of a command that is neither here nor in `fieldLevels` stops `npm run check`.
type Words<Text extends string> = Text extends `${infer First} ${infer Rest}` ? First | Words<Rest> : Text
type First = typeof firstLevel
type Added<T extends keyof First> = Exclude<
  CommandOf<T> extends infer Each ? (Each extends unknown ? keyof Each : never) : never,
  'type' | 'session' | 'mutation' | Words<First[T]> | NamedLater<T>
>
type NamedLater<T extends CommandType> = T extends keyof typeof fieldLevels
  ? keyof (typeof fieldLevels)[T]
  : never
type Unnamed = {
  [T in keyof First]: Added<T> extends never ? never : `${T}: ${string & Added<T>}`
}[keyof First]
/** An error here names the field that has no level yet. */
const areAllNamed: [Unnamed] extends [never] ? true : Unnamed = true

test('every command has a level, and the first level stays what it was', () => {
  const first = Object.entries(commandLevels).flatMap(([type, level]) => (level === BASE_LEVEL ? [type] : []))
  assert.deepEqual(first.toSorted(), Object.keys(firstLevel).toSorted(), 'a new command is not of level 1')
  for (const [type, level] of Object.entries(commandLevels))
    assert.ok(level >= BASE_LEVEL && level <= HIGHEST_LEVEL, `${type} has level ${level}`)
  assert.ok(areAllNamed)
})

test('fields that came later have a higher level than their command, and are no fields of the first', () => {
  for (const [type, fields] of Object.entries(fieldLevels)) {
    const known: Readonly<Record<string, string>> = firstLevel
    for (const [field, level] of Object.entries(fields)) {
      assert.ok(level > commandLevels[type as CommandType] && level <= HIGHEST_LEVEL, `${type}.${field}`)
      assert.ok(!(known[type] ?? '').split(' ').includes(field), `${type}.${field} is of level 1`)
    }
  }
})

const create: Command = { type: 'cluster.create', name: 'c', uuid: 'u', placement: {} }
const entryOf = (command: Command): LogCommand => ({ command, wallSeconds: 1, wallNanoseconds: 2 })

test('an entry has the format that its command needs', () => {
  assert.equal(levelOf(create), 1)
  assert.equal(encodeLogEntry(entryOf(create), 7)[0], 1)
  assert.equal(encodeLogEntry(entryOf({ ...create, level: 2 }), 7)[0], 2)
  assert.equal(encodeLogEntry(entryOf({ type: 'level.raise', level: 2 }), 7)[0], 2)
  const newer = encodeLogEntry(entryOf({ type: 'level.raise', level: HIGHEST_LEVEL + 1 }), 7)
  assert.throws(() => decodeLogEntry(newer, 7), {
    code: 'VERSION_TOO_OLD',
    message: new RegExp(
      `entry 7 is of feature level ${HIGHEST_LEVEL + 1}, this version understands ${HIGHEST_LEVEL} at most`,
    ),
  })
})

test('an entry is applied with what its level knew', () => {
  const raise = { ...create, level: 2 } as const
  assert.deepEqual(withoutFieldsAbove(raise, 1), create)
  assert.deepEqual(withoutFieldsAbove(raise, 2), raise)
  assert.deepEqual(decodeLogEntry(encodeLogEntry(entryOf(raise), 3), 3).command, raise)
  // As an older master writes what a newer client sent: it looks at nothing that it does not know.
  const bytes = encodeLogEntry(entryOf(raise), 3)
  bytes[0] = 1
  bytes.writeUInt32LE(crc32c(bytes.subarray(6)), 2)
  assert.deepEqual(decodeLogEntry(bytes, 3).command, create)
})

test('no flipped bit of a newer entry goes unseen', () => {
  const bytes = encodeLogEntry(entryOf({ type: 'level.raise', level: 2 }), 9)
  for (let position = 0; position < bytes.length * 8; position++) {
    const damaged = Buffer.from(bytes)
    damaged[position >> 3] = (damaged[position >> 3] ?? 0) ^ (1 << (position & 7))
    assert.throws(() => decodeLogEntry(damaged, 9), { code: 'LOG_CORRUPT' })
  }
})

test('the format of a store: known, too new, or none', () => {
  assert.equal(parseFormat('1'), 1)
  assert.equal(parseFormat(String(HIGHEST_LEVEL)), HIGHEST_LEVEL)
  assert.throws(() => parseFormat(String(HIGHEST_LEVEL + 1)), {
    code: 'VERSION_TOO_OLD',
    next: /does not go back to an older one/,
  })
  for (const wrong of [undefined, '', '0', 'x', '1.5'])
    assert.throws(() => parseFormat(wrong), { code: 'STATE_FORMAT' })
})
