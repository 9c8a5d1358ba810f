/**
 * One client of the torture, as a process of its own: it has a network namespace and a clock of its own, and
 * can be killed and stopped. It does what it is told over the channel to its parent and keeps nothing to itself.
 */
import { codeOf } from '../../core/base/errors.ts'
import type { Client, File, Operation } from '../../core/client/api.ts'
import { connect } from '../../core/client/connect.ts'
import type {
  ClientAnswer,
  ClientOrder,
  ClientQuestion,
  ClientResult,
  ClientStart,
} from './client-messages.ts'

const owner = { uid: 0, gid: 0 }

class ClientProcess {
  readonly #client: Client
  readonly #handles = new Map<number, File>()
  #nextHandle = 1

  constructor(client: Client) {
    this.#client = client
  }

  async perform(order: ClientOrder): Promise<ClientResult> {
    const { fileSystem } = this.#client
    switch (order.kind) {
      case 'lookup':
        return { attributes: await fileSystem.lookup(order.parent, order.name) }
      case 'make-directory':
        return { attributes: await fileSystem.makeDirectory(order.parent, order.name, 0o755, owner) }
      case 'open':
        return this.#opened(await fileSystem.open(order.inode))
      case 'create': {
        const { parent, name, exclusive } = order
        return this.#opened((await fileSystem.create(parent, name, 0o644, owner, exclusive)).file)
      }
      case 'unlink':
        await fileSystem.unlink(order.parent, order.name)
        return {}
      case 'rename':
        await fileSystem.rename(order.parent, order.name, order.newParent, order.newName, order.mode)
        return {}
      case 'close':
        this.#file(order.handle).close()
        this.#handles.delete(order.handle)
        return {}
      default:
        return await this.#performIo(order)
    }
  }

  async #performIo(order: Extract<ClientOrder, { handle: number }>): Promise<ClientResult> {
    const file = this.#file(order.handle)
    switch (order.kind) {
      case 'read': {
        const data = await new Promise<Buffer>((resolve, reject) => {
          file.read(order.offset, order.length, (error, borrowedData) => {
            if (error === null) resolve(Buffer.from(borrowedData))
            else reject(error)
          })
        })
        return { data, attributes: file.attributes() }
      }
      case 'write':
        await done((callback) => file.write(order.offset, Buffer.from(order.data), callback))
        break
      case 'flush':
        await done((callback) => file.flush(callback))
        break
      case 'truncate':
        await file.truncate(order.size)
        break
      case 'zero':
        await file.zero(order.offset, order.length, order.keepSize)
        break
      case 'close':
        break
    }
    return { attributes: file.attributes() }
  }

  #opened(file: File): ClientResult {
    const handle = this.#nextHandle++
    this.#handles.set(handle, file)
    return { handle, attributes: file.attributes() }
  }

  #file(handle: number): File {
    const file = this.#handles.get(handle)
    if (file === undefined) throw new Error(`no open file ${handle}`)
    return file
  }
}

function done(start: (callback: (error: Error | null) => void) => Operation): Promise<void> {
  return new Promise((resolve, reject) => {
    start((error) => (error === null ? resolve() : reject(error)))
  })
}

function answer(text: ClientAnswer): void {
  process.send?.(text)
}

const start = JSON.parse(process.argv[2] ?? '') as ClientStart
// Nobody is left to work for.
process.on('disconnect', () => process.exit(0))
const { cluster, metadataServers, name, keyFile } = start
const client = await connect({ cluster, metadataServers, kind: 'test', name }, { keyFile })
const worker = new ClientProcess(client)
process.on('message', ({ id, order }: ClientQuestion) => {
  worker.perform(order).then(
    (result) => answer({ id, result }),
    (error: unknown) => {
      const message = error instanceof Error ? error.message : String(error)
      answer({ id, failure: { code: codeOf(error), message } })
    },
  )
})
answer({ id: 0 })
