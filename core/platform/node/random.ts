/** Randomness of the operating system. */
import { randomBytes } from 'node:crypto'
import type { Random } from '../random.ts'

export const nodeRandom: Random = {
  float: () => Math.random(),
  below: (boundExclusive) => Math.floor(Math.random() * boundExclusive),
  bytes: (count) => randomBytes(count),
  hex: (byteCount) => randomBytes(byteCount).toString('hex'),
}
