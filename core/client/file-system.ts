/** The namespace face: thin calls to the master; attributes are completed with what our own leases know better. */
import { CairnError } from '../base/errors.ts'
import type { Attributes, FileType, PlacementAttributes } from '../wire/messages/common.ts'
import type {
  AttributeUpdate,
  Credentials,
  DirectoryEntry,
  File,
  FileSystem,
  FileSystemStatus,
} from './api.ts'
import { truncateFile } from './file/file-resize.ts'
import type { Files } from './file/files.ts'
import type { Session } from './session/session.ts'

export class ClientFileSystem implements FileSystem {
  readonly #session: Session
  readonly #files: Files

  constructor(session: Session, files: Files) {
    this.#session = session
    this.#files = files
  }

  async lookup(parent: number, name: string): Promise<Attributes> {
    const mark = this.#files.mark()
    const { attributes } = await this.#session.call('fs.lookup', { parent, name })
    return this.#files.completed(attributes, mark)
  }

  async resolve(path: string): Promise<Attributes> {
    const mark = this.#files.mark()
    const { attributes } = await this.#session.call('fs.resolve', { path })
    return this.#files.completed(attributes, mark)
  }

  async attributes(inode: number): Promise<Attributes> {
    const mark = this.#files.mark()
    const { attributes } = await this.#session.call('fs.getattr', { inode })
    return this.#files.completed(attributes, mark)
  }

  async setAttributes(inode: number, update: AttributeUpdate): Promise<Attributes> {
    const { mode, uid, gid, access, modify } = update
    const file = this.#files.get(inode)
    if (modify !== undefined) file?.forgetTimes()
    const mark = this.#files.mark()
    const { attributes } = await this.#session.mutate('fs.setattr', {
      inode,
      ...(mode === undefined ? {} : { mode }),
      ...(uid === undefined ? {} : { uid }),
      ...(gid === undefined ? {} : { gid }),
      ...(access === undefined
        ? {}
        : access === 'now'
          ? { accessNow: true }
          : { accessSeconds: access.seconds, accessNanoseconds: access.nanoseconds }),
      ...(modify === undefined
        ? {}
        : modify === 'now'
          ? { modifyNow: true }
          : { modifySeconds: modify.seconds, modifyNanoseconds: modify.nanoseconds }),
    })
    return this.#files.completed(attributes, mark)
  }

  async makeDirectory(parent: number, name: string, mode: number, owner: Credentials): Promise<Attributes> {
    return await this.makeNode(parent, name, 'directory', mode, 0, owner)
  }

  async makeNode(
    parent: number,
    name: string,
    type: FileType,
    mode: number,
    device: number,
    owner: Credentials,
  ): Promise<Attributes> {
    const { uid, gid } = owner
    const params = { parent, name, type, mode, uid, gid, device }
    return (await this.#session.mutate('fs.mknod', params)).attributes
  }

  async symlink(parent: number, name: string, target: string, owner: Credentials): Promise<Attributes> {
    const { uid, gid } = owner
    return (await this.#session.mutate('fs.symlink', { parent, name, target, uid, gid })).attributes
  }

  async readlink(inode: number): Promise<string> {
    return (await this.#session.call('fs.readlink', { inode })).target
  }

  async link(inode: number, parent: number, name: string): Promise<Attributes> {
    const mark = this.#files.mark()
    const { attributes } = await this.#session.mutate('fs.link', { inode, parent, name })
    return this.#files.completed(attributes, mark)
  }

  async unlink(parent: number, name: string): Promise<void> {
    const { inode, links } = await this.#session.mutate('fs.unlink', { parent, name })
    this.#files.unlinked(inode, links)
  }

  async removeDirectory(parent: number, name: string): Promise<void> {
    await this.#session.mutate('fs.rmdir', { parent, name })
  }

  async rename(
    parent: number,
    name: string,
    newParent: number,
    newName: string,
    mode: 'replace' | 'no-replace' | 'exchange',
  ): Promise<void> {
    const answer = await this.#session.mutate('fs.rename', { parent, name, newParent, newName, mode })
    if (answer.replaced !== undefined) this.#files.replaced(answer.replaced)
  }

  async readDirectory(
    inode: number,
    cookie: number,
    limit: number,
    plus: boolean,
  ): Promise<{ parent: number; entries: DirectoryEntry[]; end: boolean }> {
    const mark = this.#files.mark()
    const answer = await this.#session.call('fs.readdir', { inode, cookie, limit, plus })
    const entries = answer.entries.map((entry) =>
      entry.attributes === undefined
        ? entry
        : { ...entry, attributes: this.#files.completed(entry.attributes, mark) },
    ) as DirectoryEntry[]
    return { parent: answer.parent, entries, end: answer.end }
  }

  async status(): Promise<FileSystemStatus> {
    return await this.#session.call('fs.statfs', {})
  }

  async getExtendedAttribute(inode: number, name: string): Promise<Buffer> {
    const { value } = await this.#session.call('fs.getxattr', { inode, name })
    return Buffer.from(value.buffer, value.byteOffset, value.byteLength)
  }

  async setExtendedAttribute(
    inode: number,
    name: string,
    value: Buffer,
    mode: 'set' | 'create' | 'replace',
  ): Promise<void> {
    await this.#session.mutate('fs.setxattr', { inode, name, value, mode })
  }

  async listExtendedAttributes(inode: number): Promise<string[]> {
    return (await this.#session.call('fs.listxattr', { inode })).names
  }

  async removeExtendedAttribute(inode: number, name: string): Promise<void> {
    await this.#session.mutate('fs.removexattr', { inode, name })
  }

  async getPlacement(
    inode: number,
  ): Promise<{ own: PlacementAttributes; effective: Required<PlacementAttributes> }> {
    return await this.#session.call('attr.get', { inode })
  }

  async setPlacement(inode: number, attributes: PlacementAttributes, recursive: boolean): Promise<number> {
    return (await this.#session.mutate('attr.set', { inode, recursive, attributes })).changed
  }

  async create(
    parent: number,
    name: string,
    mode: number,
    owner: Credentials,
    exclusive: boolean,
  ): Promise<{ attributes: Attributes; file: File; created: boolean }> {
    const { uid, gid } = owner
    const { epoch } = this.#session
    const mark = this.#files.mark()
    const params = { parent, name, mode, uid, gid, exclusive, lease: true }
    const answer = await this.#session.mutate('fs.create', params)
    if (epoch !== this.#session.epoch)
      throw new CairnError('EIO', 'the session expired while the file was created')
    const file = this.#files.opened(answer.attributes, mark)
    const { lease } = file.state
    const number = answer.lease ?? 0
    if (number !== 0 && !lease.hasNumber && lease.phase === 'none' && !this.#files.hasGivenBack(number))
      lease.adopt(number)
    return { attributes: file.attributes(), file, created: answer.created }
  }

  async open(inode: number, options: { readonly truncate?: boolean } = {}): Promise<File> {
    const mark = this.#files.mark()
    const { attributes } = await this.#session.call('fs.open', { inode, truncate: false })
    const file = this.#files.opened(attributes, mark)
    if (options.truncate === true && (file.attributes().size > 0 || attributes.size > 0)) {
      try {
        await truncateFile(file.state, 0)
      } catch (error) {
        file.close()
        throw error
      }
    }
    return file
  }
}
