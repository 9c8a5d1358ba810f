/** Stands between a client and a metadata server on loopback: records both directions, and may change what passes. */
import net from 'node:net'
import type { AddressInfo } from 'node:net'

export interface Recording {
  readonly toServer: Buffer[]
  readonly toClient: Buffer[]
}

export interface Place {
  /** Counts from 0: index of its recording. */
  readonly connection: number
  readonly toServer: boolean
  /** Bytes of the connection in this direction before the piece. */
  readonly at: number
}

export class RecordingProxy {
  /** One for each connection, in the order in which they came. */
  readonly recordings: Recording[] = []
  /** What arrives instead of a piece that was sent; recordings hold what was sent. */
  alter: (piece: Buffer, place: Place) => Buffer = (piece) => piece
  readonly #server: net.Server
  readonly #sockets = new Set<net.Socket>()

  private constructor(target: number) {
    this.#server = net.createServer((client) => {
      const recording: Recording = { toServer: [], toClient: [] }
      const connection = this.recordings.push(recording) - 1
      const server = net.connect(target, '127.0.0.1')
      for (const socket of [client, server]) {
        this.#sockets.add(socket)
        socket.on('error', () => socket.destroy())
        socket.on('close', () => {
          this.#sockets.delete(socket)
          client.destroy()
          server.destroy()
        })
      }
      const pass = (from: net.Socket, to: net.Socket, pieces: Buffer[], toServer: boolean): void => {
        let at = 0
        from.on('data', (data) => {
          const piece = data as Buffer
          pieces.push(piece)
          to.write(this.alter(piece, { connection, toServer, at }))
          at += piece.length
        })
      }
      pass(client, server, recording.toServer, true)
      pass(server, client, recording.toClient, false)
    })
  }

  /** For a metadata server whose base port is `base`. The proxy's own base port is `port`. */
  static async start(base: number): Promise<RecordingProxy> {
    const proxy = new RecordingProxy(base + 1)
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve))
    return proxy
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port - 1
  }

  get bytes(): Buffer {
    return Buffer.concat(this.recordings.flatMap(({ toServer, toClient }) => [...toServer, ...toClient]))
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    await new Promise((resolve) => this.#server.close(resolve))
  }
}

/** Says `bytes` to a server and returns all it answers until `isEnd`, or until it closes the connection. */
export function conversation(
  port: number,
  bytes: Buffer,
  isEnd: (answers: Buffer) => boolean = () => false,
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(port, '127.0.0.1', () => socket.write(bytes))
    const answers: Buffer[] = []
    socket.on('data', (data) => {
      answers.push(data as Buffer)
      if (isEnd(Buffer.concat(answers))) socket.destroy()
    })
    socket.on('error', reject)
    socket.on('close', () => resolve(Buffer.concat(answers)))
  })
}
