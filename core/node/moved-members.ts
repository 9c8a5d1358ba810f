/**
 * Where the members of a stopped cluster will be when it starts again (`moved.json` in a repository, written by
 * `configure-mds -n`): a hint for the first meeting, gone as soon as the register of members says the same.
 * Format: docs/formats/metadata.md.
 */
import fs from 'node:fs'
import path from 'node:path'
import { Type } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { CairnError } from '../base/errors.ts'
import { isMissing } from '../cli/etc.ts'
import type { Address } from '../platform/network.ts'
import { writeFileDurably } from '../platform/node/durable-file.ts'

const MOVED_MEMBERS_MAX = 64

const MovedMembers = Type.Array(
  Type.Object({
    member: Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }),
    host: Type.String({ minLength: 1, maxLength: 255 }),
    port: Type.Integer({ minimum: 1, maximum: 65_534 }),
  }),
  { maxItems: MOVED_MEMBERS_MAX },
)

const FILE = 'moved.json'

/** Empty when there is no such file. Throws BAD_CONFIG. */
export function readMovedMembers(repository: string): Map<number, Address> {
  const file = path.join(repository, FILE)
  let value: unknown
  try {
    value = JSON.parse(fs.readFileSync(file, 'utf8'))
  } catch (error) {
    if (isMissing(error)) return new Map()
    throw unreadable(file, (error as Error).message)
  }
  if (!Value.Check(MovedMembers, value)) throw unreadable(file, 'it does not hold members and addresses')
  return new Map(value.map(({ member, host, port }) => [member, { host, port }]))
}

/** Durable when it returns. */
export function writeMovedMembers(repository: string, moved: ReadonlyMap<number, Address>): void {
  const rows = [...moved].map(([member, { host, port }]) => ({ member, host, port }))
  writeFileDurably(path.join(repository, FILE), `${JSON.stringify(rows)}\n`, 0o644)
}

export function removeMovedMembers(repository: string): void {
  fs.rmSync(path.join(repository, FILE), { force: true })
}

function unreadable(file: string, reason: string): CairnError {
  return new CairnError('BAD_CONFIG', `${file} cannot be read: ${reason}`, {
    next: 'write it again with: cairn configure-mds -n ID@IP[:PORT] …',
  })
}
