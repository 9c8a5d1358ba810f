/** What a repository remembers beside its store: the address its server listens on (`listen.json`). */
import fs from 'node:fs'
import path from 'node:path'
import { Type } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { CairnError } from '../base/errors.ts'
import type { Address } from '../platform/network.ts'
import { writeFileDurably } from '../platform/node/durable-file.ts'

const ListenSetting = Type.Object({
  host: Type.String({ minLength: 1, maxLength: 255 }),
  /** Chunk servers: 0 = the first free one of cs.port_range. */
  port: Type.Integer({ minimum: 0, maximum: 65_535 }),
})

const FILE = 'listen.json'

export function readListenSetting(repository: string): Address {
  const file = path.join(repository, FILE)
  let value: unknown
  try {
    value = JSON.parse(fs.readFileSync(file, 'utf8'))
  } catch (error) {
    throw new CairnError('BAD_CONFIG', `${file} cannot be read: ${(error as Error).message}`, {
      next: 'attach the disk (flag R), or write {"host": "ADDRESS", "port": PORT} into the file',
    })
  }
  if (Value.Check(ListenSetting, value)) return value
  throw new CairnError('BAD_CONFIG', `${file} does not hold a host and a port`, {
    next: 'write {"host": "ADDRESS", "port": PORT}',
  })
}

/** Durable when it returns: without it a repository that outlived a power cut could not be started. */
export function writeListenSetting(repository: string, setting: Address): void {
  writeFileDurably(path.join(repository, FILE), `${JSON.stringify(setting)}\n`, 0o644)
}
