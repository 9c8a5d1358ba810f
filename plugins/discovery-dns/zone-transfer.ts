/**
 * Zone transfer (AXFR, RFC 5936): the SRV records of a zone over one TCP connection. The parser is fed with bytes
 * and holds all limits; the socket belongs to `transferZone`. Nothing but owner names of SRV records is kept.
 */
import { randomInt } from 'node:crypto'
import { connect } from 'node:net'
import packet from 'dns-packet'
import type { Answer } from 'dns-packet'
import type { Endpoint } from './settings.ts'

export const TRANSFER_BYTES_MAX = 8 * 1024 * 1024
export const TRANSFER_RECORDS_MAX = 100_000
/** Low four bits of the flags of a message. */
const RESPONSE_CODE_MASK = 0xf
const RESPONSE_CODES: Readonly<Record<number, string>> = {
  1: 'the server calls the request malformed',
  2: 'the server has failed',
  3: 'the server knows no such zone',
  4: 'the server does not do zone transfers',
  5: 'the server refuses zone transfers to this host',
  9: 'the server is not responsible for the zone, or refuses',
}

/** Bytes in, owner names of SRV records out. Throws an Error for people at the first thing that is wrong. */
export class TransferParser {
  readonly #id: number
  readonly #onService: (owner: string) => void
  #pending: Buffer = Buffer.alloc(0)
  #byteCount = 0
  #recordCount = 0
  #startCount = 0

  constructor(id: number, onService: (owner: string) => void) {
    this.#id = id
    this.#onService = onService
  }

  /** The closing SOA record has come: the zone is complete. */
  get isComplete(): boolean {
    return this.#startCount >= 2
  }

  push(borrowed: Buffer): void {
    this.#byteCount += borrowed.length
    if (this.#byteCount > TRANSFER_BYTES_MAX)
      throw new Error(`the zone has more than ${TRANSFER_BYTES_MAX} bytes`)
    let rest = this.#pending.length === 0 ? borrowed : Buffer.concat([this.#pending, borrowed])
    while (!this.isComplete && rest.length >= 2) {
      const end = 2 + rest.readUInt16BE(0)
      if (rest.length < end) break
      this.#message(rest.subarray(2, end))
      rest = rest.subarray(end)
    }
    // A copy: the caller's buffer is borrowed.
    this.#pending = this.isComplete ? Buffer.alloc(0) : Buffer.from(rest)
  }

  #message(message: Buffer): void {
    const decoded = decodeMessage(message)
    const { id, flags = 0, type, answers = [] } = decoded
    if (id !== this.#id || type !== 'response') throw new Error('the answer belongs to another question')
    const code = flags & RESPONSE_CODE_MASK
    if (code !== 0) throw new Error(RESPONSE_CODES[code] ?? `the server answers with error ${code}`)
    if (answers.length === 0) throw new Error('the answer is empty')
    for (const record of answers) {
      if (this.isComplete) return
      this.#record(record)
    }
  }

  #record(record: Answer): void {
    this.#recordCount += 1
    if (this.#recordCount > TRANSFER_RECORDS_MAX)
      throw new Error(`the zone has more than ${TRANSFER_RECORDS_MAX} records`)
    if (record.type === 'SOA') this.#startCount += 1
    else if (this.#startCount === 0)
      throw new Error('the answer does not begin with the SOA record of the zone')
    else if (record.type === 'SRV') this.#onService(record.name)
  }
}

function decodeMessage(message: Buffer): ReturnType<typeof packet.decode> {
  try {
    return packet.decode(message)
  } catch (error) {
    throw new Error('the answer cannot be decoded', { cause: error })
  }
}

/** Transfers `zone` from one server. Rejects with an Error for people. */
export function transferZone(
  server: Endpoint,
  zone: string,
  onService: (owner: string) => void,
  signal: AbortSignal,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const id = randomInt(1, 0xffff)
    const parser = new TransferParser(id, onService)
    const socket = connect({ host: server.host, port: server.port, signal })
    const finish = (error?: Error): void => {
      socket.destroy()
      if (error === undefined) resolve()
      else reject(error)
    }
    socket.once('connect', () => {
      socket.write(packet.streamEncode({ type: 'query', id, questions: [{ type: 'AXFR', name: zone }] }))
    })
    socket.on('data', (borrowed: Buffer) => {
      try {
        parser.push(borrowed)
        if (parser.isComplete) finish()
      } catch (error) {
        finish(error instanceof Error ? error : new Error(String(error)))
      }
    })
    socket.once('error', (error) => finish(signal.aborted ? new Error('no complete answer in time') : error))
    socket.once('close', () => finish(new Error('the connection was closed before the end of the zone')))
  })
}
