/**
 * TCP as the platform's Network. No Nagle delay, kernel keep-alive as a last resort (the wire pings by
 * itself), buffer lists written with one writev. What is queued is bounded by whoever writes: `write`
 * says when the high-water mark is passed.
 */
import {
  createServer,
  type OnReadOpts,
  Socket,
  type SocketConstructorOpts,
  connect as tcpConnect,
} from 'node:net'
import { KIB } from '../../base/units.ts'
import { codeOf } from '../../base/errors.ts'
import {
  type Address,
  type Connection,
  type ConnectionHandler,
  formatAddress,
  type Listener,
  type Network,
} from '../network.ts'

const HIGH_WATER_BYTES = 512 * KIB
const KEEP_ALIVE_DELAY_MS = 30_000
const BACKLOG_COUNT_MAX = 1024
/** One read of a socket. */
const READ_BYTES_MAX = 256 * KIB

/**
 * Where all sockets of the process read into, one after the other: what arrives is borrowed by the handler
 * and parsed before the next read. By default Node makes 64 KiB of memory outside its heap for every read,
 * and at hundreds of MB/s the garbage collector then costs more than the data.
 */
let sharedReadBuffer: Buffer | null = null

function readBuffer(): Buffer {
  sharedReadBuffer ??= Buffer.allocUnsafeSlow(READ_BYTES_MAX)
  return sharedReadBuffer
}

class TcpConnection implements Connection {
  readonly #socket: Socket
  #remote: string
  #closeReason = 'closed by the other side'
  #handler: ConnectionHandler | null = null
  #connectTimer: NodeJS.Timeout | null = null

  /** `open` makes the socket that reads as it is told. */
  constructor(open: (onread: OnReadOpts) => Socket, remote: (socket: Socket) => string) {
    this.#socket = open({ buffer: readBuffer(), callback: this.#onRead })
    this.#remote = remote(this.#socket)
  }

  get socket(): Socket {
    return this.#socket
  }

  readonly #onRead = (sizeBytes: number, borrowed: Uint8Array): boolean => {
    const { buffer, byteOffset } = borrowed
    this.#handler?.onData(Buffer.from(buffer as ArrayBuffer, byteOffset, sizeBytes))
    return true
  }

  get remote(): string {
    return this.#remote
  }

  get bufferedBytes(): number {
    return this.#socket.writableLength
  }

  /** For outgoing connections: gives up when not open in time. */
  armConnectTimeout(timeoutMs: number): void {
    this.#connectTimer = setTimeout(() => this.destroy(`no connection in ${timeoutMs} ms`), timeoutMs)
  }

  start(handler: ConnectionHandler): void {
    this.#handler = handler
    const socket = this.#socket
    socket.setNoDelay(true)
    socket.setKeepAlive(true, KEEP_ALIVE_DELAY_MS)
    socket.on('connect', () => {
      this.#clearConnectTimer()
      handler.onOpen()
    })
    socket.on('drain', () => handler.onDrain())
    // half-open streams are of no use here: the end of one direction ends the connection
    socket.on('end', () => this.destroy('closed by the other side'))
    socket.on('error', (error) => {
      this.#closeReason = `${codeOf(error)}: ${error.message}`
    })
    socket.on('close', () => {
      this.#clearConnectTimer()
      this.#handler?.onClose(this.#closeReason)
      this.#handler = null
    })
  }

  write(ownedBuffers: readonly Buffer[], onSent?: () => void): boolean {
    const socket = this.#socket
    const last = ownedBuffers.length - 1
    if (socket.destroyed || last < 0) {
      onSent?.()
      return true
    }
    if (last > 0) socket.cork()
    let below = true
    for (let i = 0; i <= last; i++) {
      const buffer = ownedBuffers[i] as Buffer
      // the callback also runs, with an error, when the socket is destroyed first
      below = i === last && onSent !== undefined ? socket.write(buffer, () => onSent()) : socket.write(buffer)
    }
    if (last > 0) socket.uncork()
    return below
  }

  pause(): void {
    this.#socket.pause()
  }

  resume(): void {
    this.#socket.resume()
  }

  destroy(reason: string): void {
    if (this.#socket.destroyed) return
    this.#closeReason = reason
    this.#socket.destroy()
  }

  #clearConnectTimer(): void {
    if (this.#connectTimer !== null) clearTimeout(this.#connectTimer)
    this.#connectTimer = null
  }
}

export class NodeNetwork implements Network {
  async listen(address: Address, onConnection: (connection: Connection) => void): Promise<Listener> {
    const sockets = new Set<Socket>()
    const server = createServer({ highWaterMark: HIGH_WATER_BYTES, pauseOnConnect: true }, (accepted) => {
      const connection = new TcpConnection((onread) => takeOver(accepted, onread), remoteOf)
      const { socket } = connection
      sockets.add(socket)
      socket.once('close', () => {
        sockets.delete(socket)
        // the server counts the socket it has accepted
        accepted.destroy()
      })
      onConnection(connection)
      socket.resume()
    })
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen({ host: address.host, port: address.port, backlog: BACKLOG_COUNT_MAX }, () => {
        server.off('error', reject)
        resolve()
      })
    })
    // EMFILE and the like on accept: the connection is lost, the listener stays
    server.on('error', () => {})
    const bound = server.address()
    const port = bound !== null && typeof bound === 'object' ? bound.port : address.port
    return {
      address: { host: address.host, port },
      close: () =>
        new Promise<void>((resolve) => {
          server.close(() => resolve())
          for (const socket of sockets) socket.destroy()
        }),
    }
  }

  connect(address: Address, timeoutMs: number): Connection {
    const options = { host: address.host, port: address.port, highWaterMark: HIGH_WATER_BYTES }
    const open = (onread: OnReadOpts): Socket => {
      const all = { ...options, onread }
      return tcpConnect(all)
    }
    const connection = new TcpConnection(open, () => formatAddress(address))
    connection.armConnectTimeout(timeoutMs)
    return connection
  }
}

/** A server cannot be told `onread`; its sockets can be made again from their handle, before anything was read. */
function takeOver(accepted: Socket, onread: OnReadOpts): Socket {
  const owner = accepted as unknown as { _handle: unknown }
  const handle = owner._handle
  owner._handle = null
  const options = {
    handle,
    onread,
    manualStart: true,
    highWaterMark: HIGH_WATER_BYTES,
    readable: true,
    writable: true,
  }
  return new Socket(options as SocketConstructorOpts)
}

function remoteOf(socket: Socket): string {
  return formatAddress({ host: socket.remoteAddress ?? 'unknown', port: socket.remotePort ?? 0 })
}
