/**
 * TCP as the platform's Network. No Nagle delay, kernel keep-alive as a last resort (the wire pings by
 * itself), buffer lists written with one writev. What is queued is bounded by whoever writes: `write`
 * says when the high-water mark is passed.
 */
import { createServer, type Socket, connect as tcpConnect } from 'node:net'
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

class TcpConnection implements Connection {
  readonly #socket: Socket
  #remote: string
  #closeReason = 'closed by the other side'
  #handler: ConnectionHandler | null = null
  #connectTimer: NodeJS.Timeout | null = null

  constructor(socket: Socket, remote: string) {
    this.#socket = socket
    this.#remote = remote
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
    socket.on('data', (chunk: Buffer) => handler.onData(chunk))
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
    const server = createServer({ highWaterMark: HIGH_WATER_BYTES, pauseOnConnect: false }, (socket) => {
      sockets.add(socket)
      socket.once('close', () => sockets.delete(socket))
      onConnection(new TcpConnection(socket, remoteOf(socket)))
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
    const socket = tcpConnect(options)
    const connection = new TcpConnection(socket, formatAddress(address))
    connection.armConnectTimeout(timeoutMs)
    return connection
  }
}

function remoteOf(socket: Socket): string {
  return formatAddress({ host: socket.remoteAddress ?? 'unknown', port: socket.remotePort ?? 0 })
}
