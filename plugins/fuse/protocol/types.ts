/** Types that the client library uses in its face, and the log this plugin writes to. */
import type { FileSystem } from '@cairn/core/client'

export type Attributes = Awaited<ReturnType<FileSystem['attributes']>>
export type FileType = Attributes['type']

type LogFields = Readonly<Record<string, string | number | boolean | undefined>>

/** The part of the platform's Logger that is used here. */
export interface MountLogger {
  debug(message: string, fields?: LogFields): void
  info(message: string, fields?: LogFields): void
  warn(message: string, fields?: LogFields): void
  error(message: string, fields?: LogFields): void
}
