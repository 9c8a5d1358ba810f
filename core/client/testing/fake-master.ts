/**
 * The master as far as a client's data path sees it: sessions, exactly-once mutations, leases, intents,
 * epochs that are persisted before they are active, size and the zero mark. Everything is in memory and
 * happens at once; the test's network makes the delays.
 */
import { CairnError } from '../../base/errors.ts'
import { CHUNK_SIZE_BYTES, PAGE_SIZE_BYTES } from '../../base/units.ts'
import type { Attributes, ChunkLocation, ServerAddress } from '../../wire/messages/common.ts'
import { fileAttributes } from './fake-attributes.ts'
import type { FakeChunkServer } from './fake-chunk-server.ts'
import type { FakeChunk, FakeInode } from './fake-inode.ts'

type Parameters = Record<string, never> & { mutation?: { sequence: number } }
type Notify = (method: string, params: unknown) => void

const fail = (code: string, message = code): CairnError => new CairnError(code, message)

export class FakeMaster {
  readonly servers: readonly FakeChunkServer[]
  readonly inodes = new Map<number, FakeInode>()
  readonly names = new Map<string, number>()
  readonly log: string[] = []
  /** Removing a live member below this many in-sync ones is refused (rule A1). */
  minimum = 1
  replicas = 3
  noSpace = false
  /** Extra answers: throw to refuse, return undefined to go on. */
  intercept: (method: string, params: Parameters) => unknown = () => undefined
  #session = 0
  #nextSession = 1
  #nextInode = 2
  #nextChunk = 1
  #nextLease = 100
  readonly #answers = new Map<string, { value?: unknown; error?: unknown }>()
  notify: Notify = () => undefined

  constructor(servers: readonly FakeChunkServer[]) {
    this.servers = servers
  }

  get session(): number {
    return this.#session
  }

  /** As a command of the quorum: leases end, chunks with intents get a new epoch (E3). */
  expireSession(): void {
    for (const node of this.inodes.values()) {
      if (node.lease === 0) continue
      for (const chunk of node.chunks.values()) {
        if (chunk.intent === 0) continue
        chunk.intent = 0
        this.equalize(chunk)
      }
      node.lease = 0
      node.attributes = { ...node.attributes, generation: node.attributes.generation + 1 }
    }
    this.#session = 0
    this.#answers.clear()
  }

  serve(method: string, params: Parameters): unknown {
    this.log.push(method)
    const special = this.intercept(method, params)
    if (special !== undefined) return special
    if (method !== 'session.open' && method !== 'session.resume' && this.#session === 0)
      throw fail('NO_SESSION')
    const sequence = params.mutation?.sequence
    if (sequence === undefined) return this.#apply(method, params)
    const key = `${this.#session}:${sequence}`
    let answer = this.#answers.get(key)
    if (answer === undefined) {
      answer = {}
      try {
        answer.value = this.#apply(method, params)
      } catch (error) {
        answer.error = error
      }
      this.#answers.set(key, answer)
    }
    if (answer.error !== undefined) throw answer.error as Error
    return answer.value
  }

  #apply(method: string, params: Parameters): unknown {
    const handler = this.#handlers[method]
    if (handler === undefined) throw fail('UNKNOWN_METHOD', method)
    return handler(params as never)
  }

  readonly #handlers: Record<string, (params: never) => unknown> = {
    'session.open': () => {
      this.#session = this.#nextSession++
      return { session: this.#session, secret: 's', timeoutMs: 5000 }
    },
    'session.resume': ({ session }: { session: number }) => {
      if (session !== this.#session) throw fail('NO_SESSION')
      return { timeoutMs: 5000 }
    },
    'session.renew': () => ({}),
    'session.close': () => ({}),
    'fs.create': ({ name }: { name: string }) => ({ attributes: this.create(name), created: true }),
    'fs.resolve': ({ path }: { path: string }) => ({ attributes: this.#named(path) }),
    'fs.lookup': ({ name }: { name: string }) => ({ attributes: this.#named(name) }),
    'fs.getattr': ({ inode }: { inode: number }) => ({ attributes: this.#node(inode).attributes }),
    'fs.open': ({ inode }: { inode: number }) => ({ attributes: this.#node(inode).attributes }),
    'fs.close': () => ({}),
    'fs.mknod': ({ name }: { name: string }) => ({ attributes: this.create(name) }),
    'lease.acquire': ({ inode }: { inode: number }) => {
      const node = this.#node(inode)
      node.lease = this.#nextLease++
      node.leaseSession = this.#session
      const { lease, attributes, zeroFrom, dirty } = node
      return {
        lease,
        attributes,
        ...(zeroFrom === undefined ? {} : { zeroFrom }),
        ...(dirty === undefined ? {} : { dirty }),
      }
    },
    'lease.update': (params: { inode: number; lease: number; size?: number; modifySeconds?: number }) => {
      const node = this.#held(params)
      this.#update(node, params)
      return { attributes: node.attributes }
    },
    'lease.release': (params: { inode: number; lease: number }) => {
      const node = this.#held(params)
      for (const chunk of node.chunks.values())
        if (chunk.intent !== 0) throw fail('REFUSED', 'an intent is still there')
      node.lease = 0
      return {}
    },
    'lease.return': ({ leases }: { leases: { inode: number; lease: number }[] }) => {
      for (const { inode, lease } of leases) {
        const node = this.#node(inode)
        if (node.lease === lease) node.lease = 0
      }
      return {}
    },
    'lease.truncate': (params: { inode: number; lease: number; size: number }) => this.#truncate(params),
    'lease.zeroed': (params: { inode: number; lease: number; zeroFrom: number }) => {
      const node = this.#held(params)
      if (node.zeroFrom !== params.zeroFrom) throw fail('REFUSED', 'another mark')
      node.zeroFrom = undefined
      return {}
    },
    'lease.unmap': (params: { inode: number; lease: number; indexes: number[] }) => {
      const node = this.#held(params)
      for (const index of params.indexes) node.chunks.delete(index)
      return {}
    },
    'intent.grant': (params: { inode: number; lease: number; indexes: number[] }) => {
      const node = this.#held(params)
      for (const index of params.indexes) this.#grant(node, index)
      return this.located(node, params.indexes)
    },
    'intent.clear': (params: { inode: number; lease: number; chunks: number[] }) => {
      const node = this.#held(params)
      for (const chunk of node.chunks.values()) if (params.chunks.includes(chunk.id)) chunk.intent = 0
      return {}
    },
    'chunk.locate': ({ inode, indexes }: { inode: number; indexes: number[] }) =>
      this.located(this.#node(inode), indexes),
    'chunk.report': (params: {
      inode: number
      chunk: number
      version: number
      server: number
      kind: string
      reason: string
    }) => this.#report(params),
  }

  create(name: string): Attributes {
    const inode = this.#nextInode++
    const attributes = fileAttributes(inode)
    this.inodes.set(inode, { attributes, lease: 0, leaseSession: 0, zeroFrom: undefined, chunks: new Map() })
    this.names.set(name, inode)
    return attributes
  }

  chunkAt(inode: number, index: number): FakeChunk {
    const chunk = this.inodes.get(inode)?.chunks.get(index)
    if (chunk === undefined) throw new Error(`inode ${inode} has no chunk ${index}`)
    return chunk
  }

  server(id: number): FakeChunkServer {
    const server = this.servers.find((candidate) => candidate.id === id)
    if (server === undefined) throw new Error(`no CS ${id}`)
    return server
  }

  located(node: FakeInode, indexes: readonly number[]): unknown {
    const locations: ChunkLocation[] = []
    for (const index of indexes) {
      const chunk = node.chunks.get(index)
      if (chunk !== undefined) locations.push(this.locationOf(chunk))
    }
    const servers: ServerAddress[] = this.servers.map(({ id }) => ({
      server: id,
      host: 'cs',
      port: id,
      active: true,
    }))
    return { locations, servers, generation: node.attributes.generation }
  }

  locationOf(chunk: FakeChunk): ChunkLocation {
    const inSync = chunk.members.filter((member) => member.role === 'in-sync').length
    const { id, index, version } = chunk
    return {
      index,
      chunk: id,
      version,
      writable: inSync >= this.minimum,
      ...(chunk.lossVersion === undefined ? {} : { lossVersion: chunk.lossVersion }),
      members: chunk.members.map((member) => ({ ...member })),
    }
  }

  /** A new epoch: persisted by every member, then active. */
  reconfigure(chunk: FakeChunk, members: FakeChunk['members']): void {
    chunk.version++
    chunk.members = members
    for (const { server, role } of members) {
      const replica = this.server(server).replicas.get(chunk.id)
      if (replica === undefined) throw new Error(`CS ${server} has no replica of ${chunk.id}`)
      replica.version = chunk.version
      replica.role = role
    }
    const node = this.inodes.get(chunk.inode)
    if (node !== undefined)
      node.attributes = { ...node.attributes, generation: node.attributes.generation + 1 }
  }

  leave(chunk: FakeChunk, server: number): void {
    this.reconfigure(
      chunk,
      chunk.members.filter((member) => member.server !== server),
    )
  }

  /** A member comes (back) as joining; `promote` ends it. */
  join(chunk: FakeChunk, server: number): void {
    const source = chunk.members.find((member) => member.role === 'in-sync')
    if (source === undefined) throw new Error('no source')
    const pages = new Map(
      [...(this.server(source.server).replicas.get(chunk.id)?.pages ?? [])].map(([page, data]) => [
        page,
        Buffer.from(data),
      ]),
    )
    const lease = this.server(source.server).replicas.get(chunk.id)?.lease ?? 0
    this.server(server).replicas.set(chunk.id, {
      version: 0,
      role: 'joining',
      lease,
      pages,
      unflushed: new Map(),
    })
    this.reconfigure(chunk, [...chunk.members, { server, role: 'joining' }])
    this.tellHolder(chunk)
  }

  promote(chunk: FakeChunk, server: number): void {
    const member = chunk.members.find((candidate) => candidate.server === server)
    const replica = this.server(server).replicas.get(chunk.id)
    if (member === undefined || replica === undefined) throw new Error('not a member')
    member.role = 'in-sync'
    member.since = chunk.version
    replica.role = 'in-sync'
    replica.unflushed.clear()
    this.tellHolder(chunk)
  }

  /** Dirty by a dead lease: all members like the first, under a new version. */
  equalize(chunk: FakeChunk): void {
    const first = chunk.members.find((member) => member.role === 'in-sync')
    if (first === undefined) return
    const pages = this.server(first.server).replicas.get(chunk.id)?.pages ?? new Map<number, Buffer>()
    for (const member of chunk.members) {
      const replica = this.server(member.server).replicas.get(chunk.id)
      if (replica === undefined) continue
      replica.pages = new Map([...pages].map(([page, data]) => [page, Buffer.from(data)]))
      replica.unflushed.clear()
    }
    this.reconfigure(
      chunk,
      chunk.members.map(({ server }) => ({ server, role: 'in-sync' as const })),
    )
    // Rule F8: the highest written byte.
    const node = this.inodes.get(chunk.inode)
    const lastPage = Math.max(-1, ...[...pages.keys()])
    if (node !== undefined && lastPage >= 0) {
      const size = Math.max(
        node.attributes.size,
        chunk.index * CHUNK_SIZE_BYTES + (lastPage + 1) * PAGE_SIZE_BYTES,
      )
      node.attributes = { ...node.attributes, size }
    }
  }

  tellHolder(chunk: FakeChunk): void {
    if (chunk.intent === 0) return
    const node = this.#node(chunk.inode)
    const { servers } = this.located(node, []) as { servers: ServerAddress[] }
    this.notify('chunk.moved', { inode: chunk.inode, locations: [this.locationOf(chunk)], servers })
  }

  #node(inode: number): FakeInode {
    const node = this.inodes.get(inode)
    if (node === undefined) throw fail('ENOENT')
    return node
  }

  #named(name: string): Attributes {
    return this.#node(this.names.get(name) ?? 0).attributes
  }

  #held({ inode, lease }: { inode: number; lease: number }): FakeInode {
    const node = this.#node(inode)
    if (node.lease !== lease || lease === 0 || node.leaseSession !== this.#session) throw fail('NO_LEASE')
    return node
  }

  #update(node: FakeInode, update: { size?: number; modifySeconds?: number }): void {
    const { size, modifySeconds } = update
    node.attributes = {
      ...node.attributes,
      ...(size === undefined ? {} : { size }),
      ...(modifySeconds === undefined ? {} : { modifySeconds }),
    }
  }

  #truncate(params: { inode: number; lease: number; size: number }): unknown {
    const node = this.#held(params)
    const { size } = params
    if (node.zeroFrom !== undefined && size > node.zeroFrom) throw fail('REFUSED', 'the tail is not zeroed')
    if (size < node.attributes.size) {
      for (const index of [...node.chunks.keys()])
        if (index * CHUNK_SIZE_BYTES >= size) node.chunks.delete(index)
      node.zeroFrom = size % CHUNK_SIZE_BYTES === 0 ? undefined : Math.min(size, node.zeroFrom ?? size)
    }
    node.attributes = { ...node.attributes, size }
    return {
      attributes: node.attributes,
      ...(node.zeroFrom === undefined ? {} : { zeroFrom: node.zeroFrom }),
    }
  }

  #grant(node: FakeInode, index: number): void {
    let chunk = node.chunks.get(index)
    if (chunk === undefined) {
      if (this.noSpace) throw fail('ENOSPC')
      const usable = this.servers.filter((server) => !server.isDown).slice(0, this.replicas)
      const id = this.#nextChunk++
      chunk = {
        id,
        inode: node.attributes.inode,
        index,
        version: 1,
        members: usable.map((server) => ({ server: server.id, role: 'in-sync' as const, since: 1 })),
        intent: 0,
      }
      for (const server of usable) server.create(id, 1, node.lease)
      node.chunks.set(index, chunk)
    }
    const dead = chunk.members.filter((member) => this.server(member.server).isDown)
    const stays = chunk.members.some((member) => member.role === 'in-sync' && !dead.includes(member))
    if (dead.length > 0 && stays)
      this.reconfigure(
        chunk,
        chunk.members.filter((member) => !dead.includes(member)),
      )
    if (chunk.intent !== node.lease)
      node.attributes = { ...node.attributes, generation: node.attributes.generation + 1 }
    chunk.intent = node.lease
  }

  /** Rules A1, G2. */
  #report(params: { inode: number; chunk: number; version: number; server: number; kind: string }): unknown {
    const node = this.#node(params.inode)
    const chunk = [...node.chunks.values()].find((candidate) => candidate.id === params.chunk)
    if (chunk === undefined) throw fail('ENOENT')
    if (params.kind === 'bad-page') return this.located(node, [chunk.index])
    if (params.version !== chunk.version) return this.located(node, [chunk.index])
    const server = this.server(params.server)
    const isDead = server.isDown || server.isHanging
    const left = chunk.members.filter((member) => member.server !== params.server)
    const inSyncLeft = left.filter((member) => member.role === 'in-sync').length
    if (inSyncLeft === 0 || (!isDead && inSyncLeft < this.minimum)) throw fail('TRY_AGAIN')
    this.leave(chunk, params.server)
    return this.located(node, [chunk.index])
  }
}
