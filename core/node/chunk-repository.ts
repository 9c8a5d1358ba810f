/** What a chunk repository remembers beside its store: the address its server listens on. */
import fs from 'node:fs'
import path from 'node:path'
import { Type } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { CairnError } from '../base/errors.ts'

const ListenSetting = Type.Object({
  host: Type.String({ minLength: 1, maxLength: 255 }),
  /** 0: the first free one of cs.port_range. */
  port: Type.Integer({ minimum: 0, maximum: 65_535 }),
})
export interface ListenSetting {
  readonly host: string
  readonly port: number
}

const FILE = 'listen.json'

export function readListenSetting(repository: string): ListenSetting {
  const file = path.join(repository, FILE)
  try {
    const value: unknown = JSON.parse(fs.readFileSync(file, 'utf8'))
    if (Value.Check(ListenSetting, value)) return value
  } catch (error) {
    throw new CairnError('BAD_CONFIG', `${file} cannot be read: ${(error as Error).message}`, {
      next: 'attach the disk (flag R), or write {"host": "ADDRESS", "port": 0} into the file',
    })
  }
  throw new CairnError('BAD_CONFIG', `${file} does not hold a host and a port`, {
    next: 'write {"host": "ADDRESS", "port": 0}',
  })
}

export function writeListenSetting(repository: string, setting: ListenSetting): void {
  fs.writeFileSync(path.join(repository, FILE), `${JSON.stringify(setting)}\n`)
}
