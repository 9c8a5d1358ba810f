// Proves that files, snapshots and clones keep their contents whatever is written, rolled back and deleted in whatever
// order, against a model that copies: and that references, hidden chunks and condemned replicas are exactly those
// that the lists and overlays ask for.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { CHUNK_SIZE_BYTES } from '../../base/units.ts'
import { ChunkMachine } from '../../testing/chunk-machine.ts'
import { holdersOf } from '../chunks/sharing.ts'
import { createStateMachine } from '../state/machine.ts'
import { stateDigest } from '../state/state.ts'

const INDEX_COUNT = 4
const SERVER_COUNT = 4

interface Holder {
  readonly inode: number
  readonly name: string
  readonly source: number
  /** Number of the write, by index. */
  contents: Map<number, number>
}

function replicaKey(chunk: number, server: number): string {
  return `${chunk}/${server}`
}

/** The machine beside plain copies, and chunk servers that are no more than who reads through whom. */
class Pair {
  readonly machine = new ChunkMachine()
  readonly servers = this.machine.addServers(SERVER_COUNT)
  readonly session = this.machine.openSession()
  readonly files: Holder[] = []
  readonly snapshots: Holder[] = []
  /** What a write put into a chunk. */
  readonly #written = new Map<number, number>()
  /** `chunk/server` -> parent there. */
  readonly #replicas = new Map<string, number>()
  #count = 0

  constructor() {
    this.newFile()
  }

  newFile(): void {
    const name = `f${++this.#count}`
    const inode = this.machine.createFile(this.session, name)
    this.machine.setReplicas(this.session, inode, 3, 2)
    this.files.push({ inode, name, source: 0, contents: new Map() })
  }

  write(file: Holder, index: number): void {
    const { machine, session } = this
    const { inode } = file
    const lease = machine.lease(session, inode)
    const known = machine.state.inodes.get(inode)?.chunks.get(index)
    let chunk = known ?? 0
    if (known === undefined) {
      chunk = machine.createChunk(lease, inode, index, this.servers.slice(0, 3))
      for (const server of this.servers.slice(0, 3)) this.#replicas.set(replicaKey(chunk, server), 0)
    } else {
      const { granted } = machine.done({ type: 'intent.grant', lease, inode, chunks: [known], sizeLimit: 1 })
      if (granted.length === 0) chunk = this.#branch(lease, inode, index, known)
    }
    const write = ++this.#count
    this.#written.set(chunk, write)
    file.contents.set(index, write)
    const size = INDEX_COUNT * CHUNK_SIZE_BYTES
    machine.done({ type: 'lease.update', session, mutation: machine.mutation(), inode, lease, size })
    machine.done({ type: 'intent.clear', lease, inode, chunks: [chunk] })
    machine.release(session, inode, lease)
  }

  #branch(lease: number, inode: number, index: number, parent: number): number {
    const chunk = this.machine.branch(lease, inode, index)
    assert.notEqual(chunk, 0)
    for (const { server } of this.machine.row(chunk).members) {
      assert.ok(this.#replicas.has(replicaKey(parent, server)), 'an overlay has a parent under it')
      this.#replicas.set(replicaKey(chunk, server), parent)
    }
    return chunk
  }

  snapshot(file: Holder): void {
    const name = `s${++this.#count}`
    const inode = this.machine.snapshot(this.session, file.inode, name)
    this.snapshots.push({ inode, name, source: file.inode, contents: new Map(file.contents) })
  }

  clone(source: Holder): void {
    const name = `f${++this.#count}`
    const command = { parent: 1, name, uid: 0, gid: 0, session: this.session, source: source.inode }
    const { inode } = this.machine.done({
      ...{ type: 'snapshot.clone', ...command, mutation: this.machine.mutation() },
    })
    this.files.push({ inode, name, source: 0, contents: new Map(source.contents) })
  }

  rollback(snapshot: Holder): void {
    const file = this.files.find(({ inode }) => inode === snapshot.source)
    if (file === undefined) return
    const command = { type: 'snapshot.rollback' as const, session: this.session, snapshot: snapshot.inode }
    this.machine.done({ ...command, mutation: this.machine.mutation() })
    file.contents = new Map(snapshot.contents)
  }

  deleteSnapshot(snapshot: Holder): void {
    this.snapshots.splice(this.snapshots.indexOf(snapshot), 1)
    this.machine.deleteSnapshot(this.session, snapshot.inode)
  }

  unlink(file: Holder): void {
    const { machine, session } = this
    this.files.splice(this.files.indexOf(file), 1)
    machine.done({ type: 'fs.unlink', session, mutation: machine.mutation(), parent: 1, name: file.name })
    machine.done({ type: 'file.collect', inodes: [file.inode] })
  }

  /** One server merges what one of its overlays has under it, and says so. */
  merge(choice: number): void {
    const overlays = [...this.#replicas].filter(([, parent]) => parent !== 0)
    const found = overlays[choice % Math.max(1, overlays.length)]
    if (found === undefined) return
    const [chunk = 0, server = 0] = found[0].split('/').map(Number)
    const parent = this.#replicas.get(replicaKey(found[1], server)) ?? 0
    this.#replicas.set(found[0], parent)
    this.machine.done({ type: 'replica.parent', replicas: [{ chunk, server, parent }] })
  }

  /** A member leaves; another joins, flat, or again with what it has. */
  move(choice: number): void {
    const ids = [...this.machine.state.chunks.ids()]
    const chunk = ids[choice % Math.max(1, ids.length)]
    if (chunk === undefined || this.machine.row(chunk).inode === 0) return
    const { version, members } = this.machine.row(chunk)
    const servers = members.map(({ server }) => server)
    const joining = this.servers.filter((server) => !servers.includes(server)).slice(0, 1)
    if (joining.some((server) => this.machine.state.condemned.has(chunk, server))) return
    assert.ok(this.machine.propose(chunk, version, servers.slice(1), { joining }))
    assert.ok(this.machine.activate(chunk, version + 1))
    for (const server of joining) {
      const key = replicaKey(chunk, server)
      if (!this.#replicas.has(key)) this.#replicas.set(key, 0)
      const join = { chunk, version: version + 1, server, attempt: version + 1 }
      this.machine.done({ type: 'join.complete', joins: [join] })
      const parent = this.#replicas.get(key) ?? 0
      // Reported when the server registered, as all it has.
      this.machine.done({ type: 'replica.parent', replicas: [{ chunk, server, parent }] })
    }
  }

  /** Condemned replicas go, children before their parents. */
  collect(): void {
    const condemned: [chunk: number, server: number][] = []
    this.machine.state.condemned.scan(0, 10_000, (chunk, server) => condemned.push([chunk, server]))
    for (const [chunk, server] of condemned) {
      const isRead = [...this.#replicas].some(
        ([other, parent]) => parent === chunk && other.endsWith(`/${server}`),
      )
      if (isRead) continue
      this.#replicas.delete(replicaKey(chunk, server))
      this.machine.done({ type: 'replica.deleted', replicas: [{ chunk, server }] })
    }
  }

  check(): void {
    const { state } = this.machine
    const references = new Map<number, number[]>()
    for (const { inode, contents } of [...this.files, ...this.snapshots]) {
      const list = state.inodes.get(inode)?.chunks
      const found = new Map<number, number>()
      for (const index of list?.indexes() ?? []) {
        const chunk = list?.get(index) ?? 0
        found.set(index, this.#written.get(chunk) ?? 0)
        references.set(chunk, [...(references.get(chunk) ?? []), inode])
        assert.equal(this.machine.row(chunk).index, index)
      }
      assert.deepEqual(sorted(found), sorted(contents))
    }
    for (const chunk of state.chunks.ids()) this.#checkRow(chunk, references.get(chunk) ?? [])
    for (const chunk of references.keys()) assert.ok(state.chunks.has(chunk))
  }

  #checkRow(chunk: number, references: readonly number[]): void {
    const { state } = this.machine
    const row = this.machine.row(chunk)
    assert.deepEqual(
      [...holdersOf(row)].toSorted((x, y) => x - y),
      [...references].toSorted((x, y) => x - y),
      'references are the lists',
    )
    const { sharing } = state.chunks
    assert.equal(sharing.hidden.has(chunk), references.length === 0)
    assert.ok(references.length > 0 || sharing.children(chunk) !== undefined, 'there for a reason (rule S3)')
    for (const { server, parent } of row.overlays ?? []) {
      assert.ok(row.members.some((member) => member.server === server))
      assert.ok(state.chunks.has(parent))
      assert.ok(!state.condemned.has(parent, server), 'what is read through stays (rule S3)')
    }
    for (const { server } of row.members) {
      const parent = this.#replicas.get(replicaKey(chunk, server))
      assert.notEqual(parent, undefined, 'a member has its replica')
      if (parent !== 0) assert.ok(this.#replicas.has(replicaKey(parent ?? 0, server)))
    }
  }

  checkReload(): void {
    const { state } = this.machine
    const loaded = createStateMachine().state
    for (const table of [state.level, ...state.tables()])
      for (const [key, value] of table.rows()) loaded.loadRow(table.name, key, value)
    loaded.finishLoad()
    assert.equal(stateDigest(loaded), stateDigest(state))
    assert.deepEqual(
      [...loaded.chunks.sharing.hidden].toSorted((x, y) => x - y),
      [...state.chunks.sharing.hidden].toSorted((x, y) => x - y),
    )
  }

  end(): void {
    for (const snapshot of [...this.snapshots]) this.deleteSnapshot(snapshot)
    for (const file of [...this.files]) this.unlink(file)
    assert.equal(this.machine.state.chunks.size, 0)
    for (let round = 0; round < 50 && this.machine.state.condemned.size > 0; round++) this.collect()
    assert.equal(this.machine.state.condemned.size, 0, 'all space comes back')
  }
}

function sorted(contents: ReadonlyMap<number, number>): (readonly [number, number])[] {
  return [...contents].toSorted(([a], [b]) => a - b)
}

const steps: readonly [weight: number, step: (pair: Pair, a: number, b: number) => void][] = [
  [8, (pair, a, b) => on(pair.files, a, (file) => pair.write(file, b % INDEX_COUNT))],
  [1, (pair) => pair.newFile()],
  [3, (pair, a) => on(pair.files, a, (file) => pair.snapshot(file))],
  [2, (pair, a) => on(pair.snapshots, a, (snapshot) => pair.clone(snapshot))],
  [1, (pair, a) => on(pair.files, a, (file) => pair.clone(file))],
  [2, (pair, a) => on(pair.snapshots, a, (snapshot) => pair.rollback(snapshot))],
  [3, (pair, a) => on(pair.snapshots, a, (snapshot) => pair.deleteSnapshot(snapshot))],
  [1, (pair, a) => on(pair.files, a, (file) => pair.unlink(file))],
  [4, (pair, a) => pair.merge(a)],
  [2, (pair, a) => pair.move(a)],
  [2, (pair) => pair.collect()],
]
const weighted = steps.flatMap(([weight, step]) => Array.from({ length: weight }, () => step))

function on(holders: readonly Holder[], choice: number, act: (holder: Holder) => void): void {
  const holder = holders[choice % Math.max(1, holders.length)]
  if (holder !== undefined) act(holder)
}

test('contents, references and space are those of a model that copies, in any order', () => {
  const number = fc.nat({ max: 1_000 })
  const script = fc.array(fc.tuple(fc.nat({ max: weighted.length - 1 }), number, number), {
    ...{ minLength: 20, maxLength: 120, size: 'max' as const },
  })
  fc.assert(
    fc.property(script, (script_) => {
      const pair = new Pair()
      for (const [step, a, b] of script_) {
        weighted[step]?.(pair, a, b)
        pair.check()
      }
      pair.checkReload()
      pair.end()
    }),
    { numRuns: 60 },
  )
})
