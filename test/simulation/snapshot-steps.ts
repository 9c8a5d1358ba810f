/**
 * What clients do with snapshots, beside everything else: make them of files that are being written, read them, also
 * while they are deleted, clone them and files (the clone is used as any other file), roll files back, and delete them
 * in any order, also after their file. Announced to the oracle and concluded as all operations are.
 */
import { codeOf } from '../../core/base/errors.ts'
import type { Snapshots } from '../../core/client/api.ts'
import type { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import { READ_OF_DELETED } from './excuses.ts'
import type { FileModel } from './file-model.ts'
import type { SharedState } from './shared-state.ts'
import { type SnapshotEntry, SNAPSHOTS_MAX } from './snapshot-book.ts'
import type { WorkedClient, WorkedFile } from './worked-client.ts'

const owner = { uid: 0, gid: 0 }
const READS_MAX = 3
const READ_BYTES_MAX = 3 * 4096
const BETWEEN_READS_MS = 300

/** The workload of a client, as far as these steps need it. */
export interface StepHost {
  readonly name: string
  readonly client: WorkedClient
  readonly random: SeededRandom
  readonly shared: SharedState
  readonly directory: () => number
  readonly isDead: () => boolean
  readonly pause: (durationMs: number) => Promise<void>
  readonly begin: (what: string, abandon: () => void) => () => boolean
  readonly judge: (error: unknown, during: string) => void
  readonly mutate: (
    what: string,
    names: readonly string[],
    after: readonly (string | null)[],
    call: () => Promise<unknown>,
  ) => Promise<boolean>
}

export class SnapshotSteps {
  readonly #host: StepHost
  #nextFile = 1

  constructor(host: StepHost) {
    this.#host = host
  }

  async step(snapshots: Snapshots): Promise<void> {
    const { random, shared } = this.#host
    const there = shared.oracle.snapshots.there()
    const dice = random.below(100)
    const entry = there.length === 0 ? null : this.#pick(there)
    if (entry === null || (dice < 35 && there.length < SNAPSHOTS_MAX)) return await this.#create(snapshots)
    if (dice < 60) return await this.#read(entry)
    if (dice < 75) return await this.#delete(snapshots, entry)
    if (dice < 88) return await this.#clone(snapshots, random.below(3) === 0 ? null : entry)
    await this.#rollBack(snapshots, entry)
  }

  #pick<T>(choices: readonly T[]): T {
    return choices[this.#host.random.below(choices.length)] as T
  }

  /** A file that stays where it is until `use` has ended, with the name that holds it, if it may lose that. */
  async #withFile(use: (file: FileModel, held: readonly string[]) => Promise<void>): Promise<void> {
    const { shared, random } = this.#host
    const names = shared.names.freeNames().filter((name) => shared.names.occupant(name) !== null)
    const name = random.below(4) === 0 && names.length > 0 ? this.#pick(names) : null
    const file = shared.oracle.file(
      name === null ? this.#pick(shared.fileNames) : (shared.names.occupant(name) ?? ''),
    )
    if (file.inode !== 0) await use(file, name === null ? [] : [name])
  }

  async #create(snapshots: Snapshots): Promise<void> {
    const { shared, begin, judge } = this.#host
    const { oracle, names } = shared
    await this.#withFile(async (source, held) => {
      const name = oracle.snapshots.newName()
      names.take(...held)
      const abandon = (): void => {
        oracle.snapshots.unknownNames.add(name)
        names.giveBack(...held)
      }
      const since = oracle.tick()
      const conclude = begin(`snapshot-create ${source.name} ${name}`, abandon)
      try {
        const id = await snapshots.create(source.inode, name, source.name)
        if (!conclude()) return
        oracle.copied(source, oracle.snapshots.made(id, name, source).model, since, true)
        names.giveBack(...held)
      } catch (error) {
        if (!conclude()) return
        abandon()
        judge(error, 'snapshot-create')
      }
    })
  }

  async #read(entry: SnapshotEntry): Promise<void> {
    const { shared, client, name, begin, judge, random } = this.#host
    const { model } = entry
    const conclude = begin(`snapshot-read ${model.name}`, () => {})
    let file: WorkedFile | null = null
    try {
      file = await client.fileSystem.open(model.inode)
      if (!this.#host.isDead()) shared.oracle.checkSize(name, model, file.attributes().size, 0)
      for (let count = random.below(READS_MAX); count >= 0 && !this.#host.isDead(); count--) {
        await this.#readOnce(model, file)
        await this.#host.pause(random.float() * BETWEEN_READS_MS)
      }
    } catch (error) {
      const isGone = entry.state !== 'there' && codeOf(error) === 'ESTALE'
      // who opens it late finds it gone
      if (file !== null || !isGone) judge(error, isGone ? READ_OF_DELETED : 'read')
    }
    if (!this.#host.isDead()) file?.close()
    conclude()
  }

  async #readOnce(model: FileModel, file: WorkedFile): Promise<void> {
    const { shared, name, random } = this.#host
    const extents = model.extents()
    const begin = extents.length === 0 ? 0 : this.#pick(extents).begin
    const position = Math.max(0, begin + (random.below(3) - 1) * random.below(READ_BYTES_MAX))
    const length = 1 + random.below(READ_BYTES_MAX)
    await new Promise<void>((resolve, reject) => {
      file.read(position, length, (error, borrowedData) => {
        if (error !== null) return reject(error)
        if (!this.#host.isDead()) shared.oracle.checkRead(name, model, position, length, borrowedData, 0)
        resolve()
      })
    })
  }

  async #delete(snapshots: Snapshots, entry: SnapshotEntry): Promise<void> {
    const { begin, judge } = this.#host
    if (entry.userCount > 0) return
    entry.state = 'going'
    const abandon = (): void => {
      entry.state = 'unknown'
    }
    const conclude = begin(`snapshot-delete ${entry.model.name}`, abandon)
    try {
      await snapshots.delete(entry.model.inode)
      if (conclude()) entry.state = 'gone'
    } catch (error) {
      if (!conclude()) return
      abandon()
      judge(error, 'snapshot-delete')
    }
  }

  /** `entry`: null clones a file as it is. */
  async #clone(snapshots: Snapshots, entry: SnapshotEntry | null): Promise<void> {
    if (entry === null) return await this.#withFile((file, held) => this.#cloneOf(snapshots, file, held))
    entry.userCount += 1
    await this.#cloneOf(snapshots, entry.model, [])
    entry.userCount -= 1
  }

  async #cloneOf(snapshots: Snapshots, source: FileModel, held: readonly string[]): Promise<void> {
    const { shared, mutate, name: who } = this.#host
    const { oracle, names } = shared
    const free = names.freeNames().filter((name) => names.occupant(name) === null)
    if (free.length === 0) return
    const name = this.#pick(free)
    const file = `${who}.clone${this.#nextFile++}`
    const after = [file, ...held.map((one) => names.occupant(one))]
    const since = oracle.tick()
    await mutate(`clone ${source.name} to ${name}`, [name, ...held], after, async () => {
      const inode = await snapshots.clone(source.inode, this.#host.directory(), name, owner)
      if (this.#host.isDead()) return
      oracle.file(file).inode = inode
      oracle.copied(source, oracle.file(file), since, false)
    })
  }

  async #rollBack(snapshots: Snapshots, entry: SnapshotEntry): Promise<void> {
    const { shared, begin, judge, name: who } = this.#host
    const { oracle, names } = shared
    const { source: file, model: snapshot } = entry
    const held = names.freeNames().filter((name) => names.occupant(name) === file.name)
    if (held.length === 0 && !shared.fileNames.includes(file.name)) return
    names.take(...held)
    entry.userCount += 1
    const sizeBefore = file.sizeMaximum
    const record = oracle.beginRollback(who, file, snapshot)
    const letGo = (): void => {
      names.giveBack(...held)
      entry.userCount -= 1
    }
    const conclude = begin(`rollback w${record.id} ${file.name} to ${entry.name}`, () => {
      oracle.abandon(record)
      letGo()
    })
    try {
      await snapshots.rollback(snapshot.inode)
      if (!conclude()) return
      oracle.rolledBack(who, file, snapshot, record, sizeBefore)
    } catch (error) {
      if (!conclude()) return
      oracle.abandon(record)
      judge(error, 'rollback')
    }
    letGo()
  }
}
