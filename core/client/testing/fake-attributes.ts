/** Attributes of an empty file, as the fake master gives them. */
import type { Attributes } from '../../wire/messages/common.ts'

export function fileAttributes(inode: number): Attributes {
  const times = {
    accessSeconds: 0,
    accessNanoseconds: 0,
    modifySeconds: 0,
    modifyNanoseconds: 0,
    changeSeconds: 0,
    changeNanoseconds: 0,
  }
  const numbers = { mode: 0o644, uid: 0, gid: 0, links: 1, size: 0, allocated: 0, device: 0, generation: 1 }
  return { inode, type: 'file', ...numbers, ...times }
}
