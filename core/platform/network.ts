/** Byte streams between processes. The real one is TCP; the simulated one drops, delays and cuts. */

export interface Address {
  readonly host: string
  readonly port: number
}

export interface ConnectionHandler {
  /** An outgoing connection is established. Not called for accepted ones. */
  onOpen(): void
  /** `borrowed` is valid until the call returns. */
  onData(borrowed: Buffer): void
  /** The send queue fell below its high-water mark after `write` returned false. */
  onDrain(): void
  /** Exactly once, whatever the reason. */
  onClose(reason: string): void
}

export interface Connection {
  readonly remote: string
  /** Must be called once, synchronously after the connection was handed out. */
  start(handler: ConnectionHandler): void
  /**
   * Takes the buffers until they are sent. False: stop until onDrain (bytes were taken all the same).
   * `onSent` runs once, perhaps before the call returns, when the buffers are not read any more: handed
   * to the system, or the connection closed.
   */
  write(ownedBuffers: readonly Buffer[], onSent?: () => void): boolean
  readonly bufferedBytes: number
  /** Stop and resume reading: back-pressure towards the peer. */
  pause(): void
  resume(): void
  /** Idempotent; onClose follows (asynchronously). */
  destroy(reason: string): void
}

export interface Listener {
  readonly address: Address
  close(): Promise<void>
}

export interface Network {
  listen(address: Address, onConnection: (connection: Connection) => void): Promise<Listener>
  connect(address: Address, timeoutMs: number): Connection
}

export function formatAddress(address: Address): string {
  return address.host.includes(':') ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`
}
