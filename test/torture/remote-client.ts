/**
 * A client in a process of its own (client-process.ts), with the face that the workload of the simulation knows.
 * What was asked of a process that has died since is never answered, as of a machine that is gone.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import path from 'node:path'
import { CairnError } from '../../core/base/errors.ts'
import type { Credentials, Operation } from '../../core/client/api.ts'
import type { Attributes } from '../../core/wire/messages/common.ts'
import { isAlive, until } from '../integration/support/programs.ts'
import type { WorkedClient, WorkedFile, WorkedFileSystem } from '../simulation/worked-client.ts'
import type { ClientAnswer, ClientOrder, ClientResult, ClientStart } from './client-messages.ts'

const PROGRAM = path.join(import.meta.dirname, 'client-process.ts')
const START_TIMEOUT_MS = 120_000
const OUTPUT_KEPT = 10_000

interface Pending {
  readonly resolve: (result: ClientResult) => void
  readonly reject: (error: Error) => void
}

export class RemoteClient implements WorkedClient {
  readonly fileSystem: WorkedFileSystem
  /** Real processes have tests of their own for them (test/integration/snapshots.test.ts). */
  readonly snapshots = null
  readonly #child: ChildProcess
  readonly #pending = new Map<number, Pending>()
  readonly #onAnswer: () => void
  #nextId = 1
  #isConnected = false
  #isOver = false
  #output = ''

  private constructor(prefix: readonly string[], start: ClientStart, onAnswer: () => void) {
    this.#onAnswer = onAnswer
    const command = [...prefix, process.execPath, PROGRAM, JSON.stringify(start)]
    this.#child = spawn(command[0] ?? '', command.slice(1), {
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      serialization: 'advanced',
    })
    this.#child.on('message', (message) => this.#heard(message as ClientAnswer))
    // The channel of a process that was killed: nobody is asked any more.
    this.#child.on('error', () => {})
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.on('data', (data) => {
        this.#output = (this.#output + String(data)).slice(-OUTPUT_KEPT)
      })
    }
    this.fileSystem = new RemoteFileSystem((order) => this.ask(order))
  }

  /** `prefix`: in front of the command. `onAnswer`: whenever something was acknowledged. */
  static async start(
    prefix: readonly string[],
    start: ClientStart,
    onAnswer: () => void,
  ): Promise<RemoteClient> {
    const client = new RemoteClient(prefix, start, onAnswer)
    const isThere = (): boolean => {
      if (client.#isConnected) return true
      if (client.isRunning) return false
      throw new Error(`${start.name} has ended: ${client.#output}`)
    }
    await until(`${start.name} is connected`, isThere, START_TIMEOUT_MS)
    return client
  }

  get isRunning(): boolean {
    const { pid } = this.#child
    return pid !== undefined && isAlive(pid)
  }

  signal(signal: NodeJS.Signals): void {
    if (this.isRunning) this.#child.kill(signal)
  }

  /** Resolves when the process is gone. */
  async end(): Promise<void> {
    this.#isOver = true
    this.signal('SIGKILL')
    await until('the client is gone', () => !this.isRunning)
  }

  ask(order: ClientOrder): Promise<ClientResult> {
    return new Promise((resolve, reject) => {
      const id = this.#nextId++
      this.#pending.set(id, { resolve, reject })
      if (!this.#isOver && this.#child.connected) this.#child.send({ id, order })
    })
  }

  #heard(answer: ClientAnswer): void {
    if (this.#isOver) return
    if (answer.id === 0) {
      this.#isConnected = true
      return
    }
    const pending = this.#pending.get(answer.id)
    this.#pending.delete(answer.id)
    if ('failure' in answer) pending?.reject(new CairnError(answer.failure.code, answer.failure.message))
    else if ('result' in answer) {
      this.#onAnswer()
      pending?.resolve(answer.result)
    }
  }
}

type Ask = (order: ClientOrder) => Promise<ClientResult>

class RemoteFileSystem implements WorkedFileSystem {
  readonly #ask: Ask
  /** Inode to what the last answer said: all opens of a file share what the client knows of it. */
  readonly #known = new Map<number, Attributes>()

  constructor(ask: Ask) {
    this.#ask = ask
  }

  async lookup(parent: number, name: string): Promise<Attributes> {
    return attributesOf(await this.#ask({ kind: 'lookup', parent, name }))
  }

  async unlink(parent: number, name: string): Promise<void> {
    await this.#ask({ kind: 'unlink', parent, name })
  }

  async rename(
    parent: number,
    name: string,
    newParent: number,
    newName: string,
    mode: 'replace' | 'no-replace' | 'exchange',
  ): Promise<void> {
    await this.#ask({ kind: 'rename', parent, name, newParent, newName, mode })
  }

  async open(inode: number): Promise<WorkedFile> {
    return this.#opened(await this.#ask({ kind: 'open', inode }))
  }

  async create(
    parent: number,
    name: string,
    _mode: number,
    _owner: Credentials,
    exclusive: boolean,
  ): Promise<{ attributes: Attributes; file: WorkedFile }> {
    const result = await this.#ask({ kind: 'create', parent, name, exclusive })
    return { attributes: attributesOf(result), file: this.#opened(result) }
  }

  #opened(result: ClientResult): WorkedFile {
    const attributes = attributesOf(result)
    this.#known.set(attributes.inode, attributes)
    return new RemoteFile(this.#ask, result.handle ?? 0, attributes.inode, this.#known)
  }
}

function attributesOf({ attributes }: ClientResult): Attributes {
  if (attributes === undefined) throw new Error('an answer without attributes')
  return attributes
}

class RemoteFile implements WorkedFile {
  readonly #ask: Ask
  readonly #handle: number
  readonly #inode: number
  readonly #known: Map<number, Attributes>

  constructor(ask: Ask, handle: number, inode: number, known: Map<number, Attributes>) {
    this.#ask = ask
    this.#handle = handle
    this.#inode = inode
    this.#known = known
  }

  attributes(): Attributes {
    const attributes = this.#known.get(this.#inode)
    if (attributes === undefined) throw new Error(`inode ${this.#inode} was never opened`)
    return attributes
  }

  read(...[offset, length, callback]: Parameters<WorkedFile['read']>): Operation {
    return this.#start({ kind: 'read', handle: this.#handle, offset, length }, (error, data) =>
      callback(error, Buffer.from(data ?? Buffer.alloc(0))),
    )
  }

  write(...[offset, data, callback]: Parameters<WorkedFile['write']>): Operation {
    return this.#start({ kind: 'write', handle: this.#handle, offset, data }, callback)
  }

  flush(callback: Parameters<WorkedFile['flush']>[0]): Operation {
    return this.#start({ kind: 'flush', handle: this.#handle }, callback)
  }

  async truncate(size: number): Promise<Attributes> {
    await this.#perform({ kind: 'truncate', handle: this.#handle, size })
    return this.attributes()
  }

  async zero(offset: number, length: number, keepSize: boolean): Promise<void> {
    await this.#perform({ kind: 'zero', handle: this.#handle, offset, length, keepSize })
  }

  close(): void {
    void this.#ask({ kind: 'close', handle: this.#handle })
  }

  async #perform(order: ClientOrder): Promise<Uint8Array | undefined> {
    const { attributes, data } = await this.#ask(order)
    if (attributes !== undefined) this.#known.set(this.#inode, attributes)
    return data
  }

  #start(order: ClientOrder, callback: (error: CairnError | null, data?: Uint8Array) => void): Operation {
    this.#perform(order).then(
      (data) => callback(null, data),
      (error: unknown) =>
        callback(error instanceof CairnError ? error : new CairnError('INTERNAL', String(error))),
    )
    return { cancel: () => {} }
  }
}
