/**
 * The kernel's control protocol over a unix socket of mode 0600. Who can open the socket commands the
 * process, so it lies where only root (or the owner of the directory) gets.
 */
import fs from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { CairnError, codeOf } from '../base/errors.ts'
import type { EtcDirectory } from '../cli/etc.ts'
import { ControlClient, type ControlCommands, ControlSession } from '../kernel/control.ts'
import { nodeClock } from '../platform/node/platform.ts'

const CONNECTIONS_MAX = 16
/** sockaddr_un holds 108 bytes with the final zero. */
const SOCKET_PATH_BYTES_MAX = 107

/** Where the processes of a configuration root have theirs. */
export function controlDirectoryOf(etc: EtcDirectory): string {
  return path.join(etc.root, 'run')
}

export interface ControlServer {
  close(): void
}

/**
 * Replaces a socket file that nobody listens on any more. Where a process does, the next of `others` is taken: two
 * repositories of one host may have the same name. Rejects when all of them are in use.
 */
export async function serveControl(
  socketFile: string,
  commands: ControlCommands,
  others: readonly string[] = [],
): Promise<ControlServer> {
  fs.mkdirSync(path.dirname(socketFile), { recursive: true })
  // Listens before it has its name: whoever finds the name finds a listener.
  const unnamed = path.join(path.dirname(socketFile), `.${process.pid}.${(unnamedCount += 1)}`)
  const server = await listen(unnamed, commands)
  try {
    for (const file of [socketFile, ...others]) {
      if (!(await maybeName(unnamed, file))) continue
      return {
        close() {
          server.close()
          fs.rmSync(file, { force: true })
        },
      }
    }
  } finally {
    fs.rmSync(unnamed, { force: true })
  }
  server.close()
  throw new CairnError('REFUSED', `a process listens at ${socketFile} already`, {
    next: 'stop it first',
  })
}

let unnamedCount = 0

/** Gives the socket the name `file`, unless somebody listens there. */
async function maybeName(unnamed: string, file: string): Promise<boolean> {
  const found = inodeOf(file)
  if (found !== null) {
    const other = await connectControl(file)
    other?.close()
    // A name that has changed meanwhile is that of a process which starts beside this one.
    if (other !== null || inodeOf(file) !== found) return false
    fs.rmSync(file, { force: true })
  }
  try {
    fs.linkSync(unnamed, file)
    return true
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false
    throw error
  }
}

function inodeOf(file: string): number | null {
  return fs.statSync(file, { throwIfNoEntry: false })?.ino ?? null
}

async function listen(socketFile: string, commands: ControlCommands): Promise<net.Server> {
  const server = net.createServer((socket) => {
    const session = new ControlSession(commands, {
      send: (line) => socket.write(line),
      close: () => socket.end(),
    })
    socket.on('data', (data: Buffer) => session.receive(data))
    socket.on('error', () => socket.destroy())
    socket.on('close', () => session.disconnected())
  })
  server.maxConnections = CONNECTIONS_MAX
  fs.rmSync(socketFile, { force: true })
  const previousMask = process.umask(0o177)
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(shortened(socketFile), resolve)
    })
  } finally {
    process.umask(previousMask)
  }
  return server
}

export interface ControlConnection {
  readonly client: ControlClient
  close(): void
}

/** Null when nobody listens there. */
export function connectControl(socketFile: string): Promise<ControlConnection | null> {
  return new Promise((resolve) => {
    const socket = net.connect(shortened(socketFile))
    const client = new ControlClient(nodeClock, {
      send: (line) => socket.write(line),
      close: () => socket.end(),
    })
    socket.on('data', (data: Buffer) => client.receive(data))
    socket.on('close', () => client.disconnected())
    socket.once('error', () => resolve(null))
    socket.once('connect', () => resolve({ client, close: () => socket.end() }))
  })
}

/** Asks one thing; null when nobody listens there. */
export async function askControl<T>(
  socketFile: string,
  command: string,
  deadlineMs?: number,
): Promise<T | null> {
  const connection = await connectControl(socketFile)
  if (connection === null) return null
  try {
    return await connection.client.request<T>(command, {}, deadlineMs)
  } finally {
    connection.close()
  }
}

/** A long path is given relative to the working directory when that is shorter. */
function shortened(socketFile: string): string {
  if (Buffer.byteLength(socketFile) <= SOCKET_PATH_BYTES_MAX) return socketFile
  const relative = path.relative(process.cwd(), socketFile)
  return relative.length < socketFile.length ? relative : socketFile
}
