/**
 * What the clients do: a few concurrent loops in each client process, over a few shared files and a
 * directory whose names come and go. Places are chosen where the code has corners: pages, regions, chunk
 * borders, the end of the file. Everything is announced to the oracle before and concluded after; when the
 * client process dies, what was under way is concluded as unknown.
 */
import { codeOf } from '../../core/base/errors.ts'
import type { Operation } from '../../core/client/api.ts'
import type { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import { type FileModel, PAGE_BYTES, type WriteRecord } from './file-model.ts'
import { patternOf } from './pattern.ts'
import type { SharedState } from './shared-state.ts'
import { SnapshotSteps } from './snapshot-steps.ts'
import type { WorkedClient, WorkedFile } from './worked-client.ts'

const REGION_BYTES = 1024 * 1024
const CHUNK_BYTES = 64 * REGION_BYTES
const owner = { uid: 0, gid: 0 }

interface OpenFile {
  readonly model: FileModel
  readonly handle: WorkedFile
  /** Loops that use it now: it is not closed under them. */
  userCount: number
}

export class ClientWorkload {
  readonly #name: string
  readonly #client: WorkedClient
  readonly #random: SeededRandom
  readonly #shared: SharedState
  readonly #open = new Map<string, OpenFile>()
  readonly #opening = new Map<string, Promise<OpenFile>>()
  readonly #underWay = new Map<number, { what: string; abandon: () => void }>()
  #nextOperation = 1
  #directory = 0
  #nextFile = 1
  #isDead = false
  #loops = 0
  readonly #snapshotSteps: SnapshotSteps

  constructor(name: string, client: WorkedClient, random: SeededRandom, shared: SharedState) {
    this.#name = name
    this.#client = client
    this.#random = random
    this.#shared = shared
    this.#snapshotSteps = new SnapshotSteps({
      ...{ name, client, random, shared },
      directory: () => this.#directory,
      isDead: () => this.#isDead,
      pause: (durationMs) => this.#pause(durationMs),
      begin: (what, abandon) => this.#begin(what, abandon),
      judge: (error, during) => this.#judge(error, during),
      mutate: (what, names, after, call) => this.#mutate(what, names, after, call),
    })
  }

  get isIdle(): boolean {
    return this.#loops === 0 && this.#underWay.size === 0
  }

  /** What has no answer, for the message when a run does not come to its end. */
  get waiting(): string[] {
    return [...this.#underWay.values()].map(({ what }) => what)
  }

  start(directory: number): void {
    this.#directory = directory
    for (let loop = 0; loop < this.#shared.loopCount; loop++) void this.#loop()
  }

  /** The process is gone: nothing it asked for will be answered. */
  die(): void {
    this.#isDead = true
    for (const { abandon } of this.#underWay.values()) abandon()
    this.#underWay.clear()
    this.#loops = 0
    this.#shared.oracle.dropViews(this.#name)
  }

  // --- loops

  async #loop(): Promise<void> {
    this.#loops++
    while (!this.#isDead && !this.#shared.isStopping) {
      await this.#pause(this.#random.float() * 2 * this.#thinkMs())
      if (this.#isDead || this.#shared.isStopping) break
      try {
        await this.#step()
      } catch (error) {
        this.#judge(error, 'step')
      }
    }
    this.#loops = Math.max(0, this.#loops - 1)
  }

  /** Faster when faults have held operations up, slower when enough was done: runs of like worth. */
  #thinkMs(): number {
    const { clock, oracle, thinkMs, operationsWanted } = this.#shared
    const share = Math.min(1, clock.nowMs() / operationsWanted.withinMs)
    const missing = operationsWanted.count * share - oracle.checkedOperationCount
    return missing > 0 ? thinkMs / 3 : thinkMs * 6
  }

  #pause(delayMs: number): Promise<void> {
    return new Promise((resolve) => void this.#shared.clock.setTimer(delayMs, resolve))
  }

  async #step(): Promise<void> {
    const { snapshots } = this.#client
    const { snapshotPercent } = this.#shared
    if (snapshots !== null && snapshotPercent > 0 && this.#random.below(100) < snapshotPercent)
      return await this.#snapshotSteps.step(snapshots)
    const dice = this.#random.below(100)
    if (dice >= 90) return await this.#namespaceStep()
    const name = this.#pick(this.#shared.fileNames)
    const file = await this.#opened(name)
    // another loop may have closed it since
    if (this.#isDead || file === null || this.#open.get(name) !== file) return
    if (dice >= 86) return this.#close(name)
    file.userCount += 1
    try {
      if (dice < 42) await this.write(file)
      else if (dice < 68) await this.read(file)
      else if (dice < 80) await this.flush(file)
      else if (dice < 82) await this.truncate(file)
      else if (dice < 84) await this.zero(file)
      else this.checkAttributes(file)
    } finally {
      file.userCount -= 1
    }
  }

  #pick<T>(choices: readonly T[]): T {
    return choices[this.#random.below(choices.length)] as T
  }

  /** Announces an operation; the result concludes it, once. */
  #begin(what: string, abandon: () => void): () => boolean {
    const id = this.#nextOperation++
    this.#underWay.set(id, {
      what: `${this.#name} ${what} since ${this.#shared.clock.nowMs().toFixed(0)} ms`,
      abandon,
    })
    const kind = what.split(' ')[0] as string
    this.#shared.oracle.trace.line(this.#name, `→ ${what}`)
    return () => {
      if (this.#isDead || !this.#underWay.delete(id)) return false
      this.#shared.counts.set(kind, (this.#shared.counts.get(kind) ?? 0) + 1)
      this.#shared.oracle.trace.line(this.#name, `← ${what}`)
      return true
    }
  }

  #judge(error: unknown, during: string): void {
    if (this.#isDead) return
    const code = codeOf(error)
    const excuse = this.#shared.excuse(code, during)
    const text = error instanceof Error ? error.message : String(error)
    if (excuse === null)
      this.#shared.oracle.fail(`${this.#name} ${during}: ${code}: ${text}\n${(error as Error).stack}`)
    else this.#shared.oracle.trace.line(this.#name, `  ${during}: ${code} (${excuse}): ${text}`)
  }

  // --- opens

  async #opened(name: string): Promise<OpenFile | null> {
    const known = this.#open.get(name)
    if (known !== undefined) return known
    const running = this.#opening.get(name)
    if (running !== undefined) return await running
    const opening = this.#doOpen(name)
    this.#opening.set(name, opening)
    try {
      return await opening
    } finally {
      this.#opening.delete(name)
    }
  }

  async #doOpen(name: string): Promise<OpenFile> {
    const { oracle } = this.#shared
    const model = oracle.file(name)
    const since = oracle.tick()
    const sizeAt = oracle.now
    const conclude = this.#begin(`open ${name}`, () => {})
    try {
      const found = await this.#client.fileSystem.lookup(this.#directory, name)
      const handle = await this.#client.fileSystem.open(found.inode)
      conclude()
      oracle.renewView(this.#name, model, since)
      const open = { model, handle, userCount: 0 }
      if (!this.#isDead) this.#open.set(name, open)
      this.#checkSize(open, sizeAt)
      return open
    } catch (error) {
      conclude()
      throw error
    }
  }

  #checkSize({ model, handle }: OpenFile, since: number): void {
    if (!this.#isDead) this.#shared.oracle.checkSize(this.#name, model, handle.attributes().size, since)
  }

  #close(name: string): void {
    const open = this.#open.get(name)
    if (open === undefined || open.userCount > 0) return
    this.#open.delete(name)
    this.#shared.oracle.trace.line(this.#name, `close ${name}`)
    open.handle.close()
  }

  // --- data

  /** A corner and some distance from it, mostly inside the first chunks. */
  #position(model: FileModel): number {
    const corner = this.#pick([
      0,
      0,
      PAGE_BYTES,
      REGION_BYTES,
      3 * REGION_BYTES,
      CHUNK_BYTES,
      CHUNK_BYTES,
      -1,
      -1,
    ])
    if (corner === -1) {
      const extents = model.extents()
      if (extents.length > 0) return this.#near(this.#pick(extents).begin)
    }
    return this.#near(Math.max(0, corner))
  }

  #near(corner: number): number {
    switch (this.#random.below(4)) {
      case 0:
        return corner
      case 1:
        return Math.max(0, corner - this.#random.below(2 * PAGE_BYTES))
      case 2:
        return corner + this.#random.below(3 * PAGE_BYTES)
      default:
        return Math.max(0, corner + (this.#random.below(5) - 2) * PAGE_BYTES)
    }
  }

  #length(): number {
    switch (this.#random.below(4)) {
      case 0:
        return 1 + this.#random.below(PAGE_BYTES)
      case 1:
        return 1 + this.#random.below(3 * PAGE_BYTES)
      case 2:
        return 512 * (1 + this.#random.below(8))
      default:
        return PAGE_BYTES * (1 + this.#random.below(3))
    }
  }

  #call(start: (callback: (error: Error | null) => void) => Operation): Promise<Error | null> {
    return new Promise((resolve) => start(resolve))
  }

  async write({ model, handle }: OpenFile): Promise<void> {
    const begin = this.#position(model)
    const end = begin + this.#length()
    const { oracle } = this.#shared
    const record = oracle.beginWrite(this.#name, model, begin, end)
    const data = patternOf(record.id, begin, end - begin)
    const conclude = this.#begin(`write w${record.id} ${model.name} ${begin} to ${end}`, () =>
      oracle.abandon(record),
    )
    const error = await this.#call((callback) => handle.write(begin, data, callback))
    if (!conclude()) return
    if (error !== null) return this.#failed(record, error, 'write')
    const besideTruncate = model.overlapping(record).some((other) => other.end === Number.POSITIVE_INFINITY)
    oracle.acknowledge(this.#name, model, record, false)
    if (!besideTruncate) model.growMinimum(oracle.now, end)
  }

  #failed(record: WriteRecord, error: unknown, during: string): void {
    this.#shared.oracle.abandon(record)
    this.#judge(error, during)
  }

  async zero({ model, handle }: OpenFile): Promise<void> {
    const begin = this.#position(model)
    const end = begin + (this.#random.below(4) === 0 ? CHUNK_BYTES : this.#length())
    const { oracle } = this.#shared
    const record = oracle.beginZeros(this.#name, model, begin, end)
    const conclude = this.#begin(`zero w${record.id} ${model.name} ${begin} to ${end}`, () =>
      oracle.abandon(record),
    )
    try {
      await handle.zero(begin, end - begin, true)
      if (conclude()) oracle.acknowledge(this.#name, model, record, false)
    } catch (error) {
      if (conclude()) this.#failed(record, error, 'zero')
    }
  }

  async truncate({ model, handle }: OpenFile): Promise<void> {
    const size =
      this.#random.below(3) === 0 ? this.#position(model) : this.#near(this.#pick([0, model.sizeMaximum]))
    const { oracle } = this.#shared
    const record = oracle.beginZeros(this.#name, model, size, Number.POSITIVE_INFINITY)
    const sizeBefore = model.sizeMaximum
    model.widenSize(oracle.now, size)
    const conclude = this.#begin(`truncate w${record.id} ${model.name} to ${size}`, () =>
      oracle.abandon(record),
    )
    try {
      await handle.truncate(size)
      if (!conclude()) return
      const beside = model.overlapping(record)
      oracle.acknowledge(this.#name, model, record, true)
      oracle.resized(model, { minimum: size, maximum: size }, beside, sizeBefore)
    } catch (error) {
      if (conclude()) this.#failed(record, error, 'truncate')
    }
  }

  async read(file: OpenFile): Promise<void> {
    const position = this.#position(file.model)
    await this.readAt(file, position, this.#length())
  }

  async readAt({ model, handle }: OpenFile, position: number, length: number): Promise<void> {
    const { oracle } = this.#shared
    const since = oracle.viewOf(this.#name, model)
    const conclude = this.#begin(`read ${model.name} ${position} to ${position + length}`, () => {})
    const error = await new Promise<Error | null>((resolve) => {
      handle.read(position, length, (failure, borrowedData) => {
        if (failure === null && !this.#isDead)
          oracle.checkRead(this.#name, model, position, length, borrowedData, since)
        resolve(failure)
      })
    })
    if (conclude() && error !== null) this.#judge(error, 'read')
  }

  checkAttributes(open: OpenFile): void {
    this.#checkSize(open, this.#shared.oracle.viewOf(this.#name, open.model))
  }

  async flush({ model, handle }: OpenFile): Promise<void> {
    const { oracle } = this.#shared
    const issuedAt = oracle.tick()
    const isWriter = model.lastWriter === this.#name
    const conclude = this.#begin(`flush ${model.name}`, () => {})
    const error = await this.#call((callback) => handle.flush(callback))
    if (!conclude()) return
    if (error === null) return oracle.flushed(this.#name, model, issuedAt, isWriter)
    if (codeOf(error) === 'EIO' && model.maySayLost(this.#name)) {
      model.told(this.#name)
      oracle.trace.line(this.#name, `  flush says that acknowledged data was lost, as it must`)
    } else this.#judge(error, 'flush')
    model.forgive()
  }

  // --- names

  async #namespaceStep(): Promise<void> {
    const { names } = this.#shared
    const free = names.freeNames()
    if (free.length < 2) return
    const name = this.#pick(free)
    const other = this.#pick(free.filter((candidate) => candidate !== name))
    const occupant = names.occupant(name)
    const dice = this.#random.below(4)
    if (occupant === null) await (dice === 0 ? this.#lookup(name) : this.#create(name))
    else if (dice === 0) await this.#lookup(name)
    else if (dice === 1) await this.#unlink(name)
    else if (dice === 2) await this.#rename(name, other)
    else await this.#writeNamed(name, occupant)
  }

  /** Runs one mutation of names with their locks; `apply` tells the model what it did. */
  async #mutate(
    what: string,
    names: readonly string[],
    after: readonly (string | null)[],
    call: () => Promise<unknown>,
  ): Promise<boolean> {
    const model = this.#shared.names
    model.take(...names)
    const unknown = () => {
      names.forEach((name, index) => model.unknown(name, after[index] ?? null))
      model.giveBack(...names)
    }
    const conclude = this.#begin(what, unknown)
    try {
      await call()
      if (!conclude()) return false
      names.forEach((name, index) => model.set(name, after[index] ?? null))
      model.giveBack(...names)
      this.#shared.oracle.checkedOperationCount++
      return true
    } catch (error) {
      if (!conclude()) return false
      unknown()
      this.#judge(error, what)
      return false
    }
  }

  async #create(name: string): Promise<void> {
    const file = `${this.#name}.${this.#shared.clock.nowMs().toFixed(0)}.${this.#nextFile++}`
    let handle: WorkedFile | null = null
    const fileSystem = this.#client.fileSystem
    const isDone = await this.#mutate(`create ${name}`, [name], [file], async () => {
      const created = await fileSystem.create(this.#directory, name, 0o644, owner, true)
      this.#shared.oracle.file(file).inode = created.attributes.inode
      handle = created.file
    })
    if (!isDone || handle === null) return
    const open = { model: this.#shared.oracle.file(file), handle: handle as WorkedFile, userCount: 1 }
    await this.write(open)
    if (this.#random.below(2) === 0) await this.flush(open)
    if (!this.#isDead) open.handle.close()
  }

  async #unlink(name: string): Promise<void> {
    await this.#mutate(`unlink ${name}`, [name], [null], () =>
      this.#client.fileSystem.unlink(this.#directory, name),
    )
  }

  async #rename(from: string, to: string): Promise<void> {
    const { names } = this.#shared
    const moved = names.occupant(from)
    const replaced = names.occupant(to)
    const isExchange = replaced !== null && this.#random.below(2) === 0
    await this.#mutate(
      `rename ${from} to ${to}${isExchange ? ' (exchange)' : ''}`,
      [from, to],
      [isExchange ? replaced : null, moved],
      () =>
        this.#client.fileSystem.rename(
          this.#directory,
          from,
          this.#directory,
          to,
          isExchange ? 'exchange' : 'replace',
        ),
    )
  }

  async #lookup(name: string): Promise<void> {
    const model = this.#shared.names
    model.take(name)
    const conclude = this.#begin(`lookup ${name}`, () => model.giveBack(name))
    let isThere = true
    try {
      await this.#client.fileSystem.lookup(this.#directory, name)
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') {
        if (conclude()) {
          model.giveBack(name)
          this.#judge(error, 'lookup')
        }
        return
      }
      isThere = false
    }
    if (!conclude()) return
    model.giveBack(name)
    this.#shared.oracle.checkedOperationCount++
    if (isThere !== (model.occupant(name) !== null))
      this.#shared.oracle.fail(
        `${this.#name} lookup ${name}: ${isThere ? 'it is there' : 'ENOENT'}, the model says otherwise`,
      )
  }

  async #writeNamed(name: string, file: string): Promise<void> {
    const model = this.#shared.names
    const { oracle } = this.#shared
    model.take(name)
    const conclude = this.#begin(`use ${name}`, () => model.giveBack(name))
    const since = oracle.tick()
    let open: OpenFile | null = null
    try {
      const found = await this.#client.fileSystem.lookup(this.#directory, name)
      const handle = await this.#client.fileSystem.open(found.inode)
      open = { model: oracle.file(file), handle, userCount: 1 }
      oracle.renewView(this.#name, open.model, since)
      if (!this.#isDead) this.#checkSize(open, since)
      const extents = open.model.extents()
      if (extents.length > 0) await this.readAt(open, this.#pick(extents).begin, this.#length())
      if (this.#random.below(2) === 0 && !this.#isDead) await this.write(open)
    } catch (error) {
      this.#judge(error, 'use')
    }
    if (!this.#isDead) open?.handle.close()
    if (conclude()) model.giveBack(name)
  }
}
