/**
 * The check of one chunk, for scrubbing and for fsck: its replicas in sync are verified page by page, each by its
 * own server, and compared (rule R2). Compared are only chunks that nobody writes: no intent, no reconfiguration,
 * from before the first digest to after the last. A difference is looked at again, page by page; what is still
 * there is damage, since both replicas verify: one disk has lost a write with its checksum. Who is right is decided
 * by page-verdicts.ts; the others give the page up and are repaired as from any bad page (rule R1).
 */
import { codeOf } from '../../../base/errors.ts'
import { mark } from '../../../base/coverage.ts'
import { PAGES_PER_REGION } from '../../../base/units.ts'
import { PAGE_RECORD_BYTES } from '../../../wire/data.ts'
import type { ChunkProblem } from '../../../wire/messages/checks.ts'
import type { ChunkServerOrderMethods } from '../../../wire/messages/chunk.ts'
import type { ResultOf } from '../../../wire/messages/method.ts'
import type { LogCommand } from '../../state/commands.ts'
import type { ChunkMember, ChunkRow } from '../../state/rows.ts'
import { isSettled } from '../replication/chunk-waiters.ts'
import type { EventRecorder } from '../servers/event-recorder.ts'
import type { Master } from '../servers/master.ts'
import type { ServerConnection } from '../servers/server-connection.ts'
import { judgeRegion, type PageVerdict, type Witness } from './page-verdicts.ts'

/** A whole chunk is read from a disk that others use, too. */
const VERIFY_TIMEOUT_MS = 120_000
const RECORDS_TIMEOUT_MS = 10_000
/** Before what differed is looked at again. */
const AGAIN_MS = 200
const PROBLEMS_MAX = 1024
const REJECTED_PER_ORDER_MAX = 1024
const DISK_ERROR_FLAGS = /[Hh]/

type Verified = ResultOf<ChunkServerOrderMethods, 'replica.verify'>

export interface CheckOrder {
  /** `records`: no page is read, only what replicas say of theirs is compared. */
  readonly depth: 'pages' | 'records'
  /** Replicas that differ are repaired by rule; without it they are only told. */
  readonly repairs: boolean
}

export interface CheckedChunk {
  /** Whose replica was verified. */
  readonly servers: number[]
  pages: number
  /** All replicas that could be asked are equal now, or will be when they are repaired. */
  isCompared: boolean
  /** Somebody writes it, or it is being reconfigured. */
  isBusy: boolean
  problemCount: number
  readonly problems: ChunkProblem[]
}

export interface ChunkCheckParts {
  readonly master: Master
  readonly events: EventRecorder
  readonly connectionOf: (server: number) => ServerConnection | undefined
}

/** One check while it runs. */
class Run {
  readonly row: ChunkRow
  /** Somebody may have begun to write: what was compared says nothing. */
  isDisturbed: boolean
  readonly checked: CheckedChunk = {
    servers: [],
    pages: 0,
    isCompared: false,
    isBusy: false,
    problemCount: 0,
    problems: [],
  }

  constructor(row: ChunkRow) {
    this.row = row
    this.isDisturbed = row.intentLease !== 0 || !isSettled(row)
  }

  tell(kind: ChunkProblem['kind'], server: number, detail: string, page?: number): void {
    const { checked } = this
    checked.problemCount++
    if (checked.problems.length >= PROBLEMS_MAX) return
    checked.problems.push({ kind, server, detail, ...(page === undefined ? {} : { page }) })
  }
}

interface Looked {
  readonly member: ChunkMember
  readonly connection: ServerConnection
  readonly verified: Verified
}

export class ChunkCheck {
  readonly #parts: ChunkCheckParts
  readonly #running = new Map<number, Set<Run>>()

  constructor(parts: ChunkCheckParts) {
    this.#parts = parts
    parts.master.onApplied((entry) => this.#onApplied(entry))
  }

  isRunning(chunk: number): boolean {
    return this.#running.has(chunk)
  }

  /** Null when the chunk does not exist. Rejects never. */
  async check(chunk: number, order: CheckOrder): Promise<CheckedChunk | null> {
    const row = this.#parts.master.state.chunks.get(chunk)
    if (row === undefined) return null
    const run = new Run(row)
    const runs = this.#running.get(chunk)
    if (runs === undefined) this.#running.set(chunk, new Set([run]))
    else runs.add(run)
    try {
      await this.#verifyAndCompare(run, order)
    } finally {
      const left = this.#running.get(chunk)
      left?.delete(run)
      if (left?.size === 0) this.#running.delete(chunk)
    }
    run.checked.isBusy = run.isDisturbed
    return this.#parts.master.state.chunks.has(chunk) ? run.checked : null
  }

  #onApplied({ command }: LogCommand): void {
    if (this.#running.size === 0 || command.type !== 'intent.grant') return
    for (const chunk of command.chunks)
      for (const run of this.#running.get(chunk) ?? []) run.isDisturbed = true
  }

  async #verifyAndCompare(run: Run, order: CheckOrder): Promise<void> {
    const { row, checked } = run
    const inSync = row.members.filter((member) => member.role === 'in-sync')
    if (inSync.length === 0) run.tell('too-few', 0, 'no replica is in sync')
    const answers = await Promise.all(inSync.map((member) => this.#verify(run, member, order)))
    const looked = answers.filter((answer) => answer !== null)
    for (const { member, verified } of looked) {
      checked.servers.push(member.server)
      checked.pages += verified.pages
      for (const page of verified.badPages) run.tell('bad-page', member.server, 'does not verify', page)
      for (const page of verified.lostPages)
        run.tell('lost-page', member.server, 'no replica can supply it', page)
    }
    if (!this.#isQuiet(run)) return
    const regions = differingRegions(looked.map(({ verified }) => verified.digests))
    if (regions.length === 0) {
      checked.isCompared = looked.length > 0
      return
    }
    mark('replicas of a chunk that nobody writes differ')
    await this.#pause()
    checked.isCompared = await this.#settle(run, looked, regions, order.repairs)
  }

  async #verify(run: Run, member: ChunkMember, { depth }: CheckOrder): Promise<Looked | null> {
    const { chunk, version } = run.row
    const connection = this.#parts.connectionOf(member.server)
    if (connection?.isReported !== true) {
      run.tell('unreachable', member.server, 'the chunk server is not active')
      return null
    }
    try {
      const options = { timeoutMs: depth === 'pages' ? VERIFY_TIMEOUT_MS : RECORDS_TIMEOUT_MS }
      const verified = await connection.orders.call('replica.verify', { chunk, version, depth }, options)
      return { member, connection, verified }
    } catch (error) {
      run.tell('unreadable', member.server, codeOf(error))
      return null
    }
  }

  /** Rule R2: one version, and no intent since the check began. */
  #isQuiet(run: Run): boolean {
    const { master } = this.#parts
    const row = master.state.chunks.get(run.row.chunk)
    const isSame = row !== undefined && isSettled(row) && row.version === run.row.version
    if (!isSame || row.intentLease !== 0 || master.isStopped) run.isDisturbed = true
    return !run.isDisturbed
  }

  /** Looks at the pages themselves. True: all that differed is decided. */
  async #settle(
    run: Run,
    looked: readonly Looked[],
    regions: readonly number[],
    repairs: boolean,
  ): Promise<boolean> {
    for (const region of regions) {
      const witnesses = await Promise.all(looked.map((each) => this.#witness(run, each, region)))
      // it is looked at again another time
      if (witnesses.includes(null) || !this.#isQuiet(run)) return false
      const verdicts = judgeRegion(witnesses.filter((witness) => witness !== null))
      if (verdicts.length === 0) continue
      this.#tell(run, region, verdicts)
      if (repairs && !(await this.#reject(run, looked, region, verdicts))) return false
    }
    return true
  }

  async #witness(run: Run, { member, connection }: Looked, region: number): Promise<Witness | null> {
    const { chunk, version } = run.row
    try {
      const { records } = await connection.orders.call(
        'replica.records',
        { chunk, version, region },
        { timeoutMs: RECORDS_TIMEOUT_MS },
      )
      if (records.byteLength !== PAGES_PER_REGION * PAGE_RECORD_BYTES) return null
      const isSuspect = DISK_ERROR_FLAGS.test(connection.flags)
      return { server: member.server, since: member.since, isSuspect, records }
    } catch (error) {
      run.tell('unreadable', member.server, codeOf(error))
      return null
    }
  }

  #tell(run: Run, region: number, verdicts: readonly PageVerdict[]): void {
    const { chunk, inode } = run.row
    const wrong = new Set<number>()
    const guessed: PageVerdict[] = []
    for (const verdict of verdicts) {
      const page = region * PAGES_PER_REGION + verdict.index
      const kept = verdict.right.servers.map((server) => `CS#${server}`).join(', ')
      for (const { server } of verdict.wrong) {
        wrong.add(server)
        run.tell('differs', server, `${kept} is right: ${reasons[verdict.by]}`, page)
      }
      if (verdict.by === 'guess') guessed.push(verdict)
    }
    const what = `${verdicts.length} pages of chunk ${chunk} of inode ${inode}`
    for (const server of wrong) {
      const message = `CS#${server} has reported hard error on ${what}: they verify, but differ from the other replicas`
      this.#parts.events.record('CS', 'warn', 'REPLICAS_DIFFER', message, `${server} ${chunk} ${region}`)
    }
    const [first] = guessed
    if (first === undefined) return
    const message =
      `Replicas of chunk ${chunk} of inode ${inode} differ on ${guessed.length} pages and no majority says which is ` +
      `right: what CS#${first.right.servers.join(', CS#')} holds is kept, which may be older than the last write`
    this.#parts.events.record('MDS', 'err', 'REPLICAS_GUESSED', message, `${chunk} ${region}`)
  }

  /** False: somebody could not be told. Their servers report the pages, and repair begins. */
  async #reject(
    run: Run,
    looked: readonly Looked[],
    region: number,
    verdicts: readonly PageVerdict[],
  ): Promise<boolean> {
    const { chunk, version } = run.row
    for (const { member, connection } of looked) {
      const pages = verdicts.flatMap(({ index, right, wrong }) =>
        wrong
          .filter(({ server }) => server === member.server)
          .map(({ stamp, checksum }) => ({
            page: region * PAGES_PER_REGION + index,
            ...{ stamp, checksum },
            ...{ rightStamp: right.stamp, rightChecksum: right.checksum },
          })),
      )
      if (pages.length === 0) continue
      const order = { chunk, version, pages: pages.slice(0, REJECTED_PER_ORDER_MAX) }
      try {
        await connection.orders.call('replica.reject', order, { timeoutMs: RECORDS_TIMEOUT_MS })
      } catch (error) {
        run.tell('unreadable', member.server, codeOf(error))
        return false
      }
      if (!this.#isQuiet(run)) return false
    }
    return true
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => void this.#parts.master.clock.setTimer(AGAIN_MS, resolve))
  }
}

const reasons: Readonly<Record<PageVerdict['by'], string>> = {
  stamp: 'it was written under a later version',
  majority: 'most replicas agree',
  guess: 'no majority, this one is kept',
}

function differingRegions(digests: readonly (readonly number[])[]): number[] {
  const [first, ...others] = digests
  const regions: number[] = []
  for (const [region, digest] of (first ?? []).entries())
    if (others.some((other) => other[region] !== digest)) regions.push(region)
  return regions
}
