/**
 * The control socket of a running `cairn up`: one JSON request a line, one JSON answer a line, mode 0600.
 * Who can connect can stop the cluster, so it lies in the directory of the cluster and nowhere else.
 */
import fs from 'node:fs'
import net from 'node:net'
import { CairnError } from '../../base/errors.ts'
import type { ServiceStatus } from './service-process.ts'

const LINE_BYTES_MAX = 64 * 1024
const CONNECT_TIMEOUT_MS = 2000

export interface UpStatus {
  readonly pid: number
  readonly cluster: string
  readonly phase: 'starting' | 'healthy' | 'stopping'
  readonly endpoints: Readonly<Record<string, string>>
  readonly failure: string | null
  readonly processes: readonly ServiceStatus[]
}

export type UpRequest = { readonly request: 'status' } | { readonly request: 'stop' }

/** Serves until closed. Fails with EADDRINUSE semantics handled by the caller through `askUp` first. */
export async function serveUp(
  socketFile: string,
  handle: (request: UpRequest) => UpStatus | Promise<UpStatus>,
): Promise<{ close(): void }> {
  fs.rmSync(socketFile, { force: true })
  const server = net.createServer((socket) => {
    let text = ''
    socket.on('error', () => socket.destroy())
    socket.on('data', (data) => {
      text += data.toString('utf8')
      if (text.length > LINE_BYTES_MAX) return socket.destroy()
      const end = text.indexOf('\n')
      if (end < 0) return
      const line = text.slice(0, end)
      text = ''
      void answer(line, handle).then((reply) => socket.end(`${JSON.stringify(reply)}\n`))
    })
  })
  const previousMask = process.umask(0o177)
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(socketFile, resolve)
    })
  } finally {
    process.umask(previousMask)
  }
  return {
    close() {
      server.close()
      fs.rmSync(socketFile, { force: true })
    },
  }
}

async function answer(line: string, handle: (request: UpRequest) => UpStatus | Promise<UpStatus>): Promise<unknown> {
  try {
    const request = JSON.parse(line) as UpRequest
    if (request.request !== 'status' && request.request !== 'stop') return { error: 'unknown request' }
    return await handle(request)
  } catch (error) {
    return { error: (error as Error).message }
  }
}

/** Null when nothing is running there. */
export function askUp(socketFile: string, request: UpRequest['request']): Promise<UpStatus | null> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(socketFile)
    let text = ''
    socket.setTimeout(request === 'stop' ? 0 : CONNECT_TIMEOUT_MS, () => {
      socket.destroy()
      reject(new CairnError('TIMED_OUT', `no answer from the cluster's control socket ${socketFile}`))
    })
    socket.once('connect', () => socket.write(`${JSON.stringify({ request })}\n`))
    socket.on('data', (data) => {
      text += data.toString('utf8')
    })
    socket.once('error', () => resolve(null))
    socket.once('close', () => {
      const line = text.split('\n')[0]
      if (line === undefined || line === '') return resolve(null)
      const reply = JSON.parse(line) as UpStatus & { error?: string }
      if (reply.error !== undefined) reject(new CairnError('INTERNAL', reply.error))
      else resolve(reply)
    })
  })
}
