/**
 * CRC32C by the processor's own instruction, several pages in one call: native/checksums.c, which scripts/bootstrap.sh
 * compiles. Null where that has not been done or the processor has no such instruction; checksum.ts then takes the
 * package, which gives the same answers in five times the time.
 */
import { createRequire } from 'node:module'

/** Rises with every change of a function below: what was compiled of another version is not used. */
const FORM = 1
const FILE = '../../node_modules/.cache/cairn-native/checksums.node'

export interface NativeChecksums {
  readonly form: number
  /** `seed`: the CRC of the bytes before. */
  crc32c(bytes: Uint8Array, seed: number): number
  /** One CRC for each page that the bytes touch, of which the first begins at `offsetInPage`; returns how many. */
  fill(bytes: Uint8Array, offsetInPage: number, table: Uint32Array): number
  /** The same compared with a table (u32s, little-endian, any alignment): the first that differs, or -1. */
  verify(bytes: Uint8Array, offsetInPage: number, table: Uint8Array): number
}

export const nativeChecksums: NativeChecksums | null = load()

function load(): NativeChecksums | null {
  try {
    const module = createRequire(import.meta.url)(FILE) as NativeChecksums
    return module.form === FORM ? module : null
  } catch {
    // Not compiled here: slower, and nothing else.
    return null
  }
}
