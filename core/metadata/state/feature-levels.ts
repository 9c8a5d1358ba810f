/**
 * Feature levels: which commands, and which fields of commands, which version of Cairn understands. Metadata
 * servers of two versions share one log while they are updated one after the other, so the master proposes
 * nothing above the *level in force*, and raises that once every member has said that it understands more
 * (quorum/raft-log.ts). The level in force is replicated, is the format of the stored rows, and never falls.
 *
 * A log entry carries the level that it needs as its format (log/codec.ts). So an older version cannot apply
 * what it does not understand, whatever else went wrong, and a newer one applies an entry with exactly what its
 * level knew: fields that came later are taken out of it, as the older ones do not look at them either.
 *
 * Adding a command: give it the level HIGHEST_LEVEL in `commandLevels` (the compiler asks for it). Adding a
 * field to a command: name it in `fieldLevels` (the test of this file asks for it). The first of either after a
 * release raises HIGHEST_LEVEL by one. Rows are the same: while an older level is in force they are written as
 * that level wrote them. A command that is to do something else asks for the level in force when it is applied.
 */
import { assert } from '../../base/assert.ts'
import type { RowChange } from '../../platform/store.ts'
import { metadataError } from '../errors.ts'
import type { Command } from './commands.ts'
import type { ChangeTracked } from './table.ts'

/** Of every version that announces none. */
export const BASE_LEVEL = 1
/** What this version understands. */
export const HIGHEST_LEVEL = 3
/** From here on the marks of chunk servers are kept (rule B3). */
export const MARKS_LEVEL = 3
/** And what a reconciliation may have lost (rule F5). */
export const LOSSES_LEVEL = 3

/** The one table of the store that is not part of the replicated state: about the rows, not of them. */
export const META_TABLE = 'meta'
export const FORMAT_KEY = 'format'

export const commandLevels: Readonly<Record<Command['type'], number>> = {
  'fs.setattr': 1,
  'fs.create': 1,
  'fs.mknod': 1,
  'fs.symlink': 1,
  'fs.link': 1,
  'fs.unlink': 1,
  'fs.rmdir': 1,
  'fs.rename': 1,
  'fs.setxattr': 1,
  'fs.removexattr': 1,
  'attr.set': 1,
  'lease.acquire': 1,
  'lease.update': 1,
  'lease.release': 1,
  'lease.return': 2,
  'lease.truncate': 1,
  'lease.zeroed': 1,
  'lease.unmap': 1,
  'admin.setConfig': 1,
  'kv.transact': 1,
  'cluster.create': 1,
  'authentication.set': 1,
  'session.open': 1,
  'session.expire': 1,
  'chunk.reserve': 1,
  'chunk.create': 1,
  'intent.grant': 1,
  'intent.clear': 1,
  'epoch.propose': 1,
  'epoch.activate': 1,
  'join.complete': 1,
  'file.recoverSize': 1,
  'file.collect': 1,
  'replica.condemn': 1,
  'replica.deleted': 1,
  'replica.former': 1,
  'server.register': 1,
  'server.state': 1,
  'mds.add': 1,
  'mds.member': 1,
  'mds.state': 1,
  'event.record': 1,
  tick: 1,
  'level.raise': 2,
  'chunk.adopt': 2,
  'recovery.end': 2,
  'recovery.discard': 2,
  'recovery.alarm': 3,
  'recovery.acknowledge': 3,
  'replica.promote': 3,
  'file.shrink': 3,
  'snapshot.create': 3,
  'snapshot.delete': 3,
  'snapshot.clone': 3,
  'snapshot.rollback': 3,
  'snapshot.step': 3,
  'chunk.branch': 3,
  'replica.parent': 3,
  'server.marks': 3,
}

type FieldLevels = { readonly [T in Command['type']]?: Readonly<Record<string, number>> }

/** Fields that came after their command. */
export const fieldLevels = {
  'cluster.create': { level: 2 },
  'mds.member': { listens: 2 },
  'file.collect': { partly: 2 },
  'epoch.activate': { losses: 3 },
  'server.register': { marks: 3, marksHeard: 3 },
  'server.state': { marks: 3 },
} as const satisfies FieldLevels

function fieldsOf(type: Command['type']): Readonly<Record<string, number>> | undefined {
  return (fieldLevels as FieldLevels)[type]
}

/** What a command needs of every member. */
export function levelOf(command: Command): number {
  let level = commandLevels[command.type]
  const fields = fieldsOf(command.type)
  if (fields !== undefined)
    for (const [field, needed] of Object.entries(fields))
      if (Object.hasOwn(command, field)) level = Math.max(level, needed)
  return Math.max(level, levelPutInForce(command))
}

/** Above 0: with this command a level comes into force. It needs that all understand it, not that it is in force. */
export function levelPutInForce(command: Command): number {
  if (command.type === 'level.raise') return command.level
  return command.type === 'cluster.create' ? (command.level ?? 0) : 0
}

/** As members of that level understand the command. */
export function withoutFieldsAbove(command: Command, level: number): Command {
  const fields = fieldsOf(command.type)
  if (fields === undefined) return command
  const isAbove = (field: string): boolean => (fields[field] ?? 0) > level
  if (!Object.keys(command).some(isAbove)) return command
  return Object.fromEntries(Object.entries(command).filter(([field]) => !isAbove(field))) as Command
}

/** The level in force, as of the applied index. Its row is the format of the store. */
export class FeatureLevel implements ChangeTracked {
  readonly name = META_TABLE
  #inForce = BASE_LEVEL
  /** A new store says what its rows are. */
  #isDirty = true

  get inForce(): number {
    return this.#inForce
  }

  raiseTo(level: number): void {
    assert(
      level > this.#inForce && level <= HIGHEST_LEVEL,
      `the level rises, and not above what is understood`,
    )
    this.#inForce = level
    this.#isDirty = true
  }

  loadRow(key: string, value: string): void {
    if (key !== FORMAT_KEY) throw metadataError('ROW_CORRUPT', `${this.name}/${key}`)
    this.#inForce = parseFormat(value)
    this.#isDirty = false
  }

  get changedCount(): number {
    return this.#isDirty ? 1 : 0
  }

  collectChanges(into: RowChange[]): void {
    if (this.#isDirty) into.push({ table: this.name, key: FORMAT_KEY, value: String(this.#inForce) })
    this.#isDirty = false
  }

  *rows(): Iterable<readonly [string, string]> {
    yield [FORMAT_KEY, String(this.#inForce)]
  }
}

/** The level of stored rows. Throws VERSION_TOO_OLD when this version does not understand it, STATE_FORMAT. */
export function parseFormat(format: string | undefined): number {
  const level = Number(format)
  if (!Number.isSafeInteger(level) || level < BASE_LEVEL)
    throw metadataError(
      'STATE_FORMAT',
      `found ${format ?? 'none'}, this version reads up to ${HIGHEST_LEVEL}`,
    )
  if (level > HIGHEST_LEVEL) throw tooOld('the metadata are', level)
  return level
}

export function tooOld(what: string, level: number): Error {
  return metadataError(
    'VERSION_TOO_OLD',
    `${what} of feature level ${level}, this version understands ${HIGHEST_LEVEL} at most`,
  )
}
