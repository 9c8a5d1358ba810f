/** The directory tree of the in-memory client, and what another client would do to it (`external…`). */
import type {
  AttributeUpdate,
  Credentials,
  DirectoryEntry,
  File,
  FileSystem,
  FileSystemStatus,
  TimeUpdate,
} from '@cairn/core/client'
import { MemoryContents, MemoryFile } from './memory-file.ts'
import {
  type Attributes,
  type MemoryNode,
  type MemoryOptions,
  memoryError,
  now,
  touch,
} from './memory-node.ts'

const ROOT = 1
const NAME_BYTES_MAX = 255
const TOTAL_BYTES = 2 ** 40

export class MemoryFileSystem implements FileSystem {
  readonly #nodes = new Map<number, MemoryNode>()
  readonly #options: MemoryOptions
  #lastInode = ROOT
  #lastCookie = 0

  constructor(options: MemoryOptions) {
    this.#options = options
    this.#nodes.set(ROOT, this.#newNode(ROOT, ROOT, 'directory', 0o755, { uid: 0, gid: 0 }, 0))
  }

  get nodeCount(): number {
    return this.#nodes.size
  }

  /** Another client rewrote a file. */
  externalWrite(inode: number, text: string): void {
    const node = this.node(inode)
    node.contents.zero(0, Number.POSITIVE_INFINITY)
    node.contents.write(Buffer.from(text), 0)
    const generation = node.attributes.generation + 1
    node.attributes = touch(node.attributes, { size: Buffer.byteLength(text), generation }, true)
  }

  node(inode: number): MemoryNode {
    const node = this.#nodes.get(inode)
    if (node === undefined) throw memoryError('ESTALE')
    return node
  }

  #newNode(
    inode: number,
    parent: number,
    type: Attributes['type'],
    mode: number,
    owner: Credentials,
    device: number,
  ): MemoryNode {
    const { seconds, nanoseconds } = now()
    const attributes: Attributes = {
      inode,
      type,
      mode,
      uid: owner.uid,
      gid: owner.gid,
      links: type === 'directory' ? 2 : 1,
      size: 0,
      allocated: 0,
      device,
      accessSeconds: seconds,
      accessNanoseconds: nanoseconds,
      modifySeconds: seconds,
      modifyNanoseconds: nanoseconds,
      changeSeconds: seconds,
      changeNanoseconds: nanoseconds,
      generation: 1,
    }
    return {
      attributes,
      contents: new MemoryContents(),
      entries: new Map(),
      parent,
      target: '',
      extended: new Map(),
      openCount: 0,
    }
  }

  #directory(inode: number): MemoryNode {
    const node = this.node(inode)
    if (node.attributes.type !== 'directory') throw memoryError('ENOTDIR')
    return node
  }

  #find(parent: number, name: string): MemoryNode {
    const entry = this.#directory(parent).entries.get(name)
    if (entry === undefined) throw memoryError('ENOENT')
    return this.node(entry.inode)
  }

  #add(
    parent: number,
    name: string,
    type: Attributes['type'],
    mode: number,
    owner: Credentials,
    device = 0,
  ): MemoryNode {
    const directory = this.#directory(parent)
    if (Buffer.byteLength(name) > NAME_BYTES_MAX) throw memoryError('ENAMETOOLONG')
    if (directory.entries.has(name)) throw memoryError('EEXIST')
    this.#lastInode++
    const node = this.#newNode(this.#lastInode, parent, type, mode, owner, device)
    this.#nodes.set(this.#lastInode, node)
    this.#attach(parent, name, this.#lastInode)
    return node
  }

  #attach(parent: number, name: string, inode: number): void {
    const directory = this.#directory(parent)
    this.#lastCookie++
    directory.entries.set(name, { inode, cookie: this.#lastCookie })
    const isDirectory = this.node(inode).attributes.type === 'directory'
    const links = directory.attributes.links + (isDirectory ? 1 : 0)
    directory.attributes = touch(directory.attributes, { links }, true)
    if (isDirectory) this.node(inode).parent = parent
  }

  #detach(parent: number, name: string): MemoryNode {
    const directory = this.#directory(parent)
    const node = this.#find(parent, name)
    directory.entries.delete(name)
    const links = directory.attributes.links - (node.attributes.type === 'directory' ? 1 : 0)
    directory.attributes = touch(directory.attributes, { links }, true)
    return node
  }

  #dropLink(node: MemoryNode): void {
    const isDirectory = node.attributes.type === 'directory'
    node.attributes = touch(node.attributes, { links: isDirectory ? 0 : node.attributes.links - 1 }, false)
    this.#maybeCollect(node)
  }

  #maybeCollect(node: MemoryNode): void {
    if (node.attributes.links === 0 && node.openCount === 0) this.#nodes.delete(node.attributes.inode)
  }

  async lookup(parent: number, name: string): Promise<Attributes> {
    this.#options.counts.lookup++
    return this.#find(parent, name).attributes
  }

  async resolve(path: string): Promise<Attributes> {
    let node = this.node(ROOT)
    for (const name of path.split('/').filter(Boolean)) node = this.#find(node.attributes.inode, name)
    return node.attributes
  }

  async attributes(inode: number): Promise<Attributes> {
    this.#options.counts.attributes++
    return this.node(inode).attributes
  }

  async setAttributes(inode: number, update: AttributeUpdate): Promise<Attributes> {
    const node = this.node(inode)
    const at = (time: TimeUpdate | 'now') => (time === 'now' ? now() : time)
    let attributes = touch(node.attributes, {}, false)
    const { mode, uid, gid } = update
    attributes = {
      ...attributes,
      mode: mode ?? attributes.mode,
      uid: uid ?? attributes.uid,
      gid: gid ?? attributes.gid,
    }
    if (update.access !== undefined) {
      const { seconds, nanoseconds } = at(update.access)
      attributes = { ...attributes, accessSeconds: seconds, accessNanoseconds: nanoseconds }
    }
    if (update.modify !== undefined) {
      const { seconds, nanoseconds } = at(update.modify)
      attributes = { ...attributes, modifySeconds: seconds, modifyNanoseconds: nanoseconds }
    }
    node.attributes = attributes
    return attributes
  }

  async makeDirectory(parent: number, name: string, mode: number, owner: Credentials) {
    return this.#add(parent, name, 'directory', mode, owner).attributes
  }

  async makeNode(
    parent: number,
    name: string,
    type: Attributes['type'],
    mode: number,
    device: number,
    owner: Credentials,
  ) {
    return this.#add(parent, name, type, mode, owner, device).attributes
  }

  async symlink(parent: number, name: string, target: string, owner: Credentials) {
    const node = this.#add(parent, name, 'symlink', 0o777, owner)
    node.target = target
    node.attributes = { ...node.attributes, size: Buffer.byteLength(target) }
    return node.attributes
  }

  async readlink(inode: number): Promise<string> {
    return this.node(inode).target
  }

  async link(inode: number, parent: number, name: string): Promise<Attributes> {
    const node = this.node(inode)
    if (node.attributes.type === 'directory') throw memoryError('EPERM')
    if (this.#directory(parent).entries.has(name)) throw memoryError('EEXIST')
    this.#attach(parent, name, inode)
    node.attributes = touch(node.attributes, { links: node.attributes.links + 1 }, false)
    return node.attributes
  }

  async unlink(parent: number, name: string): Promise<void> {
    if (this.#find(parent, name).attributes.type === 'directory') throw memoryError('EISDIR')
    this.#dropLink(this.#detach(parent, name))
  }

  async removeDirectory(parent: number, name: string): Promise<void> {
    const node = this.#find(parent, name)
    if (node.attributes.type !== 'directory') throw memoryError('ENOTDIR')
    if (node.entries.size > 0) throw memoryError('ENOTEMPTY')
    this.#dropLink(this.#detach(parent, name))
  }

  async rename(
    parent: number,
    name: string,
    newParent: number,
    newName: string,
    mode: 'replace' | 'no-replace' | 'exchange',
  ): Promise<void> {
    const node = this.#find(parent, name)
    const target = this.#directory(newParent).entries.get(newName)
    if (mode === 'no-replace' && target !== undefined) throw memoryError('EEXIST')
    if (mode === 'exchange') {
      const other = this.#find(newParent, newName)
      this.#detach(parent, name)
      this.#detach(newParent, newName)
      this.#attach(parent, name, other.attributes.inode)
      this.#attach(newParent, newName, node.attributes.inode)
      return
    }
    if (target?.inode === node.attributes.inode) return
    if (target !== undefined) {
      const replaced = this.node(target.inode)
      const isDirectory = node.attributes.type === 'directory'
      if (isDirectory !== (replaced.attributes.type === 'directory')) {
        throw memoryError(isDirectory ? 'ENOTDIR' : 'EISDIR')
      }
      if (replaced.entries.size > 0) throw memoryError('ENOTEMPTY')
      this.#dropLink(this.#detach(newParent, newName))
    }
    this.#detach(parent, name)
    this.#attach(newParent, newName, node.attributes.inode)
    node.attributes = touch(node.attributes, {}, false)
  }

  async readDirectory(inode: number, cookie: number, limit: number, plus: boolean) {
    const directory = this.#directory(inode)
    const entries: DirectoryEntry[] = []
    let end = true
    for (const [name, entry] of directory.entries) {
      if (entry.cookie <= cookie) continue
      if (entries.length === limit) {
        end = false
        break
      }
      const { attributes } = this.node(entry.inode)
      const base = { name, inode: entry.inode, type: attributes.type, cookie: entry.cookie }
      entries.push(plus ? { ...base, attributes } : base)
    }
    return { parent: directory.parent, entries, end }
  }

  async status(): Promise<FileSystemStatus> {
    const free = TOTAL_BYTES / 2
    return {
      totalBytes: TOTAL_BYTES,
      freeBytes: free,
      availableBytes: free,
      files: this.#nodes.size,
      filesFree: 1_000_000,
      nameBytesMax: NAME_BYTES_MAX,
    }
  }

  async getExtendedAttribute(inode: number, name: string): Promise<Buffer> {
    const value = this.node(inode).extended.get(name)
    if (value === undefined) throw memoryError('ENODATA')
    return value
  }

  async setExtendedAttribute(
    inode: number,
    name: string,
    value: Buffer,
    mode: 'set' | 'create' | 'replace',
  ): Promise<void> {
    const { extended } = this.node(inode)
    if (mode === 'create' && extended.has(name)) throw memoryError('EEXIST')
    if (mode === 'replace' && !extended.has(name)) throw memoryError('ENODATA')
    extended.set(name, value)
  }

  async listExtendedAttributes(inode: number): Promise<string[]> {
    return [...this.node(inode).extended.keys()]
  }

  async removeExtendedAttribute(inode: number, name: string): Promise<void> {
    if (!this.node(inode).extended.delete(name)) throw memoryError('ENODATA')
  }

  getPlacement(): Promise<never> {
    return Promise.reject(memoryError('ENOSYS'))
  }

  setPlacement(): Promise<never> {
    return Promise.reject(memoryError('ENOSYS'))
  }

  #openNode(node: MemoryNode): File {
    node.openCount++
    return new MemoryFile(node, this.#options, () => {
      node.openCount--
      this.#maybeCollect(node)
    })
  }

  async create(parent: number, name: string, mode: number, owner: Credentials, exclusive: boolean) {
    const existing = this.#directory(parent).entries.get(name)
    if (existing !== undefined && exclusive) throw memoryError('EEXIST')
    const node =
      existing === undefined ? this.#add(parent, name, 'file', mode, owner) : this.node(existing.inode)
    return { attributes: node.attributes, file: this.#openNode(node), created: existing === undefined }
  }

  async open(inode: number, options: { readonly truncate?: boolean } = {}): Promise<File> {
    const node = this.node(inode)
    if (node.attributes.type !== 'file') throw memoryError('EINVAL')
    const file = this.#openNode(node)
    if (options.truncate === true) await file.truncate(0)
    return file
  }
}
