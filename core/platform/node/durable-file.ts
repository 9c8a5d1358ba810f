/** A small file that is whole after a power cut: the one of before, or the new one. */
import fs from 'node:fs'
import path from 'node:path'
import { nodeRandom } from './random.ts'

/** Beside its place first, renamed there. Durable, with its entry in the directory, when it returns. */
export function writeFileDurably(file: string, contents: string, mode: number): void {
  const draft = `${file}.${nodeRandom.hex(8)}`
  try {
    const descriptor = fs.openSync(draft, 'wx', mode)
    try {
      fs.fchmodSync(descriptor, mode)
      fs.writeFileSync(descriptor, contents)
      fs.fsyncSync(descriptor)
    } finally {
      fs.closeSync(descriptor)
    }
    fs.renameSync(draft, file)
  } catch (error) {
    fs.rmSync(draft, { force: true })
    throw error
  }
  const parent = fs.openSync(path.dirname(file), 'r')
  fs.fsyncSync(parent)
  fs.closeSync(parent)
}
