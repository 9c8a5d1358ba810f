/** An open waits for the kernel to drop attributes: until it is answered a signal can end it, and nothing stays behind. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { defaultSettings } from '../options.ts'
import type { Device } from '../protocol/device.ts'
import { EINTR } from '../protocol/errno.ts'
import { Request, writeUInt64 } from '../protocol/request.ts'
import { until } from '../testing/harness.ts'
import { MemoryClient } from '../testing/memory-client.ts'
import { Context } from './context.ts'
import { open } from './files.ts'

const UNIQUE = 77

function openRequest(inode: number): Request {
  const buffer = Buffer.alloc(48)
  buffer.writeUInt32LE(buffer.length, 0)
  writeUInt64(buffer, UNIQUE, 8)
  writeUInt64(buffer, inode, 16)
  const request = new Request(buffer)
  assert.ok(request.parse(buffer, buffer.length))
  return request
}

test('an open that waits for the kernel can be ended by a signal, and its handle is released', async () => {
  const { fileSystem } = new MemoryClient()
  const { file, attributes } = await fileSystem.create(1, 'f', 0o644, { uid: 0, gid: 0 }, true)
  file.close()
  const errors: number[] = []
  const device = {
    write: (header: Buffer) => void errors.push(-header.readInt32LE(4)),
    pause: () => undefined,
    resume: () => undefined,
  }
  let kernelDone: (() => void) | undefined
  const notifier = {
    send: () => assert.fail('pages and names are not waited for'),
    dropAttributes: (_inode: number, done?: () => void) => {
      kernelDone = done
      return true
    },
  }
  const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }
  const context = new Context(fileSystem, device as unknown as Device, notifier, defaultSettings, log)
  context.inodes.told({ ...attributes, size: attributes.size + 1 }, true)
  open(context, openRequest(attributes.inode))
  await until('the kernel is asked', () => kernelDone !== undefined)
  assert.equal(context.pending.interrupt(UNIQUE), true, 'EAGAIN would make the kernel ask again and again')
  await until('the wait has ended', () => errors.length > 0)
  kernelDone?.()
  assert.deepEqual(errors, [EINTR])
  assert.equal(context.files.openInode(attributes.inode), undefined)
  context.pending.stop()
})
