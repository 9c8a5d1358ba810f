/**
 * Extended attributes. `user.*` and `trusted.*` are kept (the kernel restricts the latter to root);
 * POSIX ACLs and everything under `security.*` and `system.*` are refused with ENOTSUP, here, without
 * asking the cluster: every `ls -l` asks for them.
 */
import { REQUEST_PAYLOAD_BYTES_MAX, xattrFlag } from '../protocol/constants.ts'
import type { Context } from './context.ts'
import { EINVAL, ENOTSUP, ERANGE } from '../protocol/errno.ts'
import { OUT_HEADER_BYTES } from '../protocol/reply.ts'
import type { Request } from '../protocol/request.ts'

const VALUE_BYTES_MAX = 65_536
const SIZE_ANSWER_BYTES = OUT_HEADER_BYTES + 8

function isKept(name: string): boolean {
  return name.startsWith('user.') || name.startsWith('trusted.')
}

/** The size alone when `room` is 0, else the bytes if they fit. */
function answerSized(context: Context, unique: number, value: Buffer, room: number): void {
  if (room === 0) {
    context.scratch.writeUInt32LE(value.length, OUT_HEADER_BYTES)
    context.scratch.writeUInt32LE(0, OUT_HEADER_BYTES + 4)
    context.scratchAnswer(unique, SIZE_ANSWER_BYTES)
    return
  }
  if (value.length > room || value.length > REQUEST_PAYLOAD_BYTES_MAX) context.error(unique, ERANGE)
  else context.data(unique, value)
}

export function getxattr(context: Context, request: Request): void {
  const { unique, node } = request
  const room = request.uint32()
  request.skip(4)
  const name = request.name()
  if (!isKept(name)) {
    context.error(unique, ENOTSUP)
    return
  }
  context.run(unique, context.fileSystem.getExtendedAttribute(node, name), (value) => {
    answerSized(context, unique, value, room)
  })
}

export function setxattr(context: Context, request: Request): void {
  const { unique, node } = request
  const byteCount = request.uint32()
  const flags = request.uint32()
  const name = request.name()
  if (!isKept(name)) {
    context.error(unique, ENOTSUP)
    return
  }
  const both = xattrFlag.CREATE | xattrFlag.REPLACE
  if (byteCount > VALUE_BYTES_MAX || (flags & ~both) !== 0 || (flags & both) === both) {
    context.error(unique, EINVAL)
    return
  }
  const value = Buffer.from(request.bytes(byteCount)) // outlives the request's buffer
  const mode = flags === 0 ? 'set' : flags === xattrFlag.CREATE ? 'create' : 'replace'
  context.run(unique, context.fileSystem.setExtendedAttribute(node, name, value, mode), () =>
    context.ok(unique),
  )
}

export function listxattr(context: Context, request: Request): void {
  const { unique } = request
  const room = request.uint32()
  context.run(unique, context.fileSystem.listExtendedAttributes(request.node), (names) => {
    const kept = names.filter(isKept)
    answerSized(context, unique, Buffer.from(kept.map((name) => `${name}\0`).join(''), 'utf8'), room)
  })
}

export function removexattr(context: Context, request: Request): void {
  const { unique } = request
  const name = request.name()
  if (!isKept(name)) {
    context.error(unique, ENOTSUP)
    return
  }
  context.run(unique, context.fileSystem.removeExtendedAttribute(request.node, name), () =>
    context.ok(unique),
  )
}
