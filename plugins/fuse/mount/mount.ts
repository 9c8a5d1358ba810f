/**
 * One FUSE mount in this process: from a connected client and a directory to a usable file system, and
 * back. Needs root and /dev/fuse. The client stays the caller's: closing it is his, after `closed`.
 */
import { closeSync, openSync } from 'node:fs'
import { realpath, stat, writeFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import type { Client } from '@cairn/core/client'
import { Context } from '../operations/context.ts'
import { Device, type DeviceOptions } from '../protocol/device.ts'
import { codeOf } from '../protocol/errno.ts'
import { invalidate } from '../operations/invalidation.ts'
import { WorkerNotifier } from '../protocol/notifier.ts'
import { closeFile } from '../operations/files.ts'
import { type MountSettings, defaultSettings } from '../options.ts'
import { recordMount, removeRecord } from './runtime-record.ts'
import { removeStaleMount } from './stale-mount.ts'
import { Session } from '../operations/session.ts'
import { type MountEntry, findMount, mountError, systemMount, systemUnmount } from './system-mount.ts'
import type { MountLogger } from '../protocol/types.ts'
import { Watcher } from './watcher.ts'

/** How long a stop waits for programs to leave before it ends the connection under them. */
export const UNMOUNT_DEADLINE_MS = 10_000
const BUSY_RETRY_MS = 200
const READY_DEADLINE_MS = 30_000
const CLOSE_DEADLINE_MS = 30_000
/** Read-ahead of sequential readers: the kernel's default of 128 KiB is too little for a network. */
const READ_AHEAD_KIB = 4096

export interface MountParameters {
  readonly client: Client
  readonly directory: string
  /** Shown by df and mount; "cairn://NAME". */
  readonly source: string
  readonly settings?: MountSettings
  readonly logger: MountLogger
  readonly device?: DeviceOptions
}

export interface Mount {
  readonly directory: string
  readonly watcherProcessId: number | undefined
  /** Resolves with why it ended: 'unmounted', 'aborted', or what failed. Never rejects. */
  readonly closed: Promise<string>
  /**
   * Asks for the mount to go; programs that use it have until the deadline, then get errors. Resolves
   * when everything is closed.
   */
  unmount(deadlineMs?: number): Promise<void>
}

export async function mountFuse(parameters: MountParameters): Promise<Mount> {
  const { logger } = parameters
  const settings = parameters.settings ?? defaultSettings
  await removeStaleMount(parameters.directory, logger)
  const directory = await checkDirectory(parameters.directory)
  const descriptor = openDevice()
  const device = new Device(descriptor, logger, parameters.device)
  try {
    await systemMount({ descriptor, source: parameters.source, directory, flags: settings.flags })
  } catch (error) {
    closeSync(descriptor)
    throw error
  }
  const notifier = new WorkerNotifier(descriptor, logger)
  const context = new Context(parameters.client.fileSystem, device, notifier, settings, logger)
  const mount = new ActiveMount(parameters, directory, context, notifier)
  try {
    await mount.start()
  } catch (error) {
    await mount.unmount(0)
    throw error
  }
  return mount
}

async function checkDirectory(given: string): Promise<string> {
  if (process.getuid?.() !== 0) {
    throw mountError('EPERM', 'only root can mount', 'run the command as root')
  }
  try {
    if ((await stat(given)).isDirectory()) return await realpath(given)
  } catch (error) {
    const code = codeOf(error)
    throw mountError(
      'NOT_FOUND',
      `${given} cannot be used as a mount point: ${code}`,
      `create it: mkdir -p ${given}`,
    )
  }
  throw mountError('NOT_FOUND', `${given} is not a directory`, 'name a directory')
}

function openDevice(): number {
  try {
    return openSync('/dev/fuse', 'r+')
  } catch (error) {
    throw mountError(
      'MOUNT_FAILED',
      `/dev/fuse cannot be opened: ${codeOf(error)}`,
      'load the kernel module: modprobe fuse',
    )
  }
}

class ActiveMount implements Mount {
  readonly directory: string
  readonly closed: Promise<string>
  readonly #parameters: MountParameters
  readonly #context: Context
  readonly #notifier: WorkerNotifier
  #watcher: Watcher | undefined
  #entry: MountEntry | undefined
  #unsubscribe: (() => void) | undefined
  #resolveClosed: (reason: string) => void = () => {}
  #unmounting: Promise<void> | undefined

  constructor(parameters: MountParameters, directory: string, context: Context, notifier: WorkerNotifier) {
    this.#parameters = parameters
    this.directory = directory
    this.#context = context
    this.#notifier = notifier
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve
    })
  }

  get watcherProcessId(): number | undefined {
    return this.#watcher?.processId
  }

  async start(): Promise<void> {
    const context = this.#context
    const ready = Promise.withResolvers<void>()
    ready.promise.catch(() => {}) // it may fail before anybody waits for it below
    const session = new Session(context, ready.resolve)
    const deadline = setTimeout(() => {
      ready.reject(
        mountError('TIMED_OUT', 'the kernel did not open the connection', 'see the kernel log: dmesg'),
      )
    }, READY_DEADLINE_MS)
    context.device.start({
      onRequest: (request) => session.handle(request),
      onEnd: (reason) => {
        ready.reject(mountError('MOUNT_FAILED', `the mount ended at once: ${reason}`, 'see the log'))
        void this.#end(reason)
      },
    })
    this.#unsubscribe = this.#parameters.client.onInvalidate((change) => invalidate(context, change))
    const entry = await findMount(this.directory)
    if (entry !== undefined) {
      this.#entry = entry
      this.#watcher = new Watcher(entry, context.log)
    }
    try {
      await ready.promise
    } finally {
      clearTimeout(deadline)
    }
    if (entry !== undefined) await this.#tune(entry)
    context.log.info('mounted', { directory: this.directory, source: this.#parameters.source })
  }

  async #tune(entry: MountEntry): Promise<void> {
    await recordMount(entry, this.#watcher?.processId ?? 0, this.#context.log)
    try {
      await writeFile(`/sys/class/bdi/${entry.device}/read_ahead_kb`, String(READ_AHEAD_KIB))
    } catch (error) {
      this.#context.log.debug('read-ahead stays at the default', { code: codeOf(error) })
    }
  }

  /** The kernel is done with us: close what programs left open, then let everything go. */
  async #end(reason: string): Promise<void> {
    const context = this.#context
    this.#unsubscribe?.()
    await this.#detach()
    this.#watcher?.stop()
    context.pending.stop()
    for (const giveUp of [...context.noSpaceWaits]) giveUp()
    await Promise.race([this.#closeFiles(), delay(CLOSE_DEADLINE_MS, undefined, { ref: false })])
    await this.#notifier.stop()
    context.device.close()
    if (this.#entry !== undefined) await removeRecord(this.#entry)
    context.log.info('the mount ended', { directory: this.directory, reason })
    this.#resolveClosed(reason)
  }

  /** A connection that was aborted leaves its mount behind, answering ENOTCONN: take it away. */
  async #detach(): Promise<void> {
    const entry = await findMount(this.directory)
    if (entry === undefined || entry.device !== this.#entry?.device) return
    const result = await systemUnmount(this.directory, 'lazy')
    if (result.status !== 0) {
      this.#context.log.warn('the dead mount could not be removed', { message: result.message })
    }
  }

  async #closeFiles(): Promise<void> {
    const { files } = this.#context
    const closing: Promise<void>[] = []
    for (const handle of files.handles()) {
      const open = files.release(handle)
      if (open !== undefined) closing.push(new Promise((resolve) => closeFile(this.#context, open, resolve)))
    }
    await Promise.all(closing)
  }

  unmount(deadlineMs = UNMOUNT_DEADLINE_MS): Promise<void> {
    this.#unmounting ??= this.#unmount(deadlineMs)
    return this.#unmounting
  }

  async #unmount(deadlineMs: number): Promise<void> {
    const startMs = performance.now()
    let result = await systemUnmount(this.directory, 'normal')
    while (result.status !== 0 && !this.#context.device.ended && performance.now() - startMs < deadlineMs) {
      await delay(BUSY_RETRY_MS)
      result = await systemUnmount(this.directory, 'normal')
    }
    if (result.status !== 0 && !this.#context.device.ended) {
      this.#context.log.warn('still in use: ending the connection under the programs', {
        directory: this.directory,
        message: result.message,
      })
      await systemUnmount(this.directory, 'force') // `#end` detaches what is left
    }
    await this.closed
  }
}
