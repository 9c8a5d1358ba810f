/** Stands between a client and a metadata server on loopback: records both directions, and may change what passes. */
import net from 'node:net'
import type { AddressInfo } from 'node:net'

export interface Recording {
  readonly toServer: Buffer[]
  readonly toClient: Buffer[]
}

export class RecordingProxy {
  /** One for each connection, in the order in which they came. */
  readonly recordings: Recording[] = []
  /** What arrives at the server instead of a piece from the client; `at`: bytes of the connection before it. */
  alter: (piece: Buffer, at: number) => Buffer = (piece) => piece
  readonly #server: net.Server
  readonly #sockets = new Set<net.Socket>()

  private constructor(target: number) {
    this.#server = net.createServer((client) => {
      const recording: Recording = { toServer: [], toClient: [] }
      this.recordings.push(recording)
      const server = net.connect(target, '127.0.0.1')
      let at = 0
      for (const socket of [client, server]) {
        this.#sockets.add(socket)
        socket.on('error', () => socket.destroy())
        socket.on('close', () => {
          this.#sockets.delete(socket)
          client.destroy()
          server.destroy()
        })
      }
      client.on('data', (data) => {
        const piece = data as Buffer
        recording.toServer.push(piece)
        server.write(this.alter(piece, at))
        at += piece.length
      })
      server.on('data', (data) => {
        const piece = data as Buffer
        recording.toClient.push(piece)
        client.write(piece)
      })
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

/** Says `bytes` to a metadata server and returns all it answers until `isEnd`, or until it closes the connection. */
export function conversation(
  base: number,
  bytes: Buffer,
  isEnd: (answers: Buffer) => boolean = () => false,
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(base + 1, '127.0.0.1', () => socket.write(bytes))
    const answers: Buffer[] = []
    socket.on('data', (data) => {
      answers.push(data as Buffer)
      if (isEnd(Buffer.concat(answers))) socket.destroy()
    })
    socket.on('error', reject)
    socket.on('close', () => resolve(Buffer.concat(answers)))
  })
}
