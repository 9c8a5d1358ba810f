/**
 * How many marks the disk of each chunk server has (rule B3): heard with heartbeats, committed at most once a second,
 * and only while something is written. A chunk whose intent was given back stays *unsettled* until every member has
 * said, after that, how many marks it has: from then on a disk without them is known to have gone back in time, and
 * the open-list entry may go. Neither writes nor flushes wait for any of this.
 */
import type { ServerRow, UnsettledRow } from '../../state/rows.ts'
import { MARKS_LEVEL } from '../../state/feature-levels.ts'
import type { Master } from './master.ts'
import type { ServerConnection } from './server-connection.ts'
import type { ServerOrders } from './server-orders.ts'

const TICK_MS = 1000
const ASK_TIMEOUT_MS = 2000
/** Of one command: rows that one commit can take. */
const SETTLED_COUNT_MAX = 512

interface Heard {
  readonly incarnation: number
  readonly marks: number
}

export interface DiskMarksParts {
  readonly master: Master
  readonly connections: ReadonlyMap<number, ServerConnection>
  readonly orders: Pick<ServerOrders, 'close'>
}

export class DiskMarks {
  readonly #parts: DiskMarksParts
  readonly #heard = new Map<number, Heard>()
  #isRunning = false

  constructor(parts: DiskMarksParts) {
    this.#parts = parts
    parts.master.every(TICK_MS, () => this.#tick())
  }

  /** What its disk has at least; what is committed may be a little less. */
  heardOf(server: number): number {
    return this.#heard.get(server)?.marks ?? 0
  }

  heard({ server, incarnation }: ServerConnection, marks: number): void {
    const before = this.#heard.get(server)
    if (before === undefined || before.incarnation !== incarnation || before.marks < marks)
      this.#heard.set(server, { incarnation, marks })
  }

  /** It registered: from now on the committed row says more. */
  forget(server: number): void {
    this.#heard.delete(server)
  }

  #tick(): void {
    const { master } = this.#parts
    if (this.#isRunning || master.state.level.inForce < MARKS_LEVEL || master.isInRecovery) return
    const isRisen = [...this.#heard].some(([server, heard]) =>
      isNews(master.state.servers.get(server), heard),
    )
    if (!isRisen && master.state.unsettled.size === 0) return
    this.#isRunning = true
    this.#round()
      .catch((error: unknown) => master.logger.error('marks were not told', { error: String(error) }))
      .finally(() => (this.#isRunning = false))
  }

  /** A part after the other: after a busy time, or a change of the master, many chunks are unsettled. */
  async #round(): Promise<void> {
    const { master } = this.#parts
    const through = master.log.appliedIndex
    const answers = new Map<number, Promise<boolean>>()
    this.#tell(through, [])
    for (const part of partsOf(master.state.unsettled.entries(), through)) {
      const members = this.#membersOf(part)
      for (const server of new Set([...members.values()].flat()))
        if (!answers.has(server)) answers.set(server, this.#ask(server))
      const answered = new Set<number>()
      for (const [server, answer] of answers) if (await answer) answered.add(server)
      if (master.isStopped) return
      // Who is silent has left, or answers later: until then a disk that goes back is known by what is remembered here.
      this.#tell(
        through,
        part.filter((chunk) => (members.get(chunk) ?? []).every((server) => answered.has(server))),
      )
      await new Promise<void>((resolve) => master.defer(resolve))
    }
  }

  #membersOf(chunks: readonly number[]): Map<number, number[]> {
    const { chunks: table } = this.#parts.master.state
    return new Map(
      chunks.map((chunk) => [chunk, table.get(chunk)?.members.map(({ server }) => server) ?? []]),
    )
  }

  /** False: it is asked again in the next round. */
  async #ask(server: number): Promise<boolean> {
    const connection = this.#parts.connections.get(server)
    if (connection?.isReported !== true) return false
    try {
      const { marks } = await connection.orders.call('cs.ping', {}, { timeoutMs: ASK_TIMEOUT_MS })
      // One of an older version does not count them.
      if (marks !== undefined) this.heard(connection, marks)
      return true
    } catch {
      return false
    }
  }

  #tell(through: number, chunks: readonly number[]): void {
    const { master } = this.#parts
    const marks = [...this.#heard]
      .filter(([server, heard]) => isNews(master.state.servers.get(server), heard))
      .map(([server, heard]) => ({ server, ...heard }))
    if (marks.length === 0 && chunks.length === 0) return
    const command = { type: 'server.marks' as const, marks, through, chunks: [...chunks] }
    master.submit(command, ({ settled }) => this.#close(settled))
  }

  /** The open-list entries may go (rule B1), unless the chunk is being written again. */
  #close(settled: readonly number[]): void {
    const { master, orders } = this.#parts
    for (const chunk of settled) {
      const row = master.state.chunks.get(chunk)
      if (row === undefined || row.intentLease !== 0) continue
      for (const { server } of row.members) orders.close(server, chunk)
    }
  }
}

/** Chunks that were given back up to that index, as many as one commit takes. The table may change in between. */
function* partsOf(
  unsettled: Iterable<readonly [number, UnsettledRow]>,
  through: number,
): Generator<readonly number[]> {
  let part: number[] = []
  for (const [chunk, { index }] of unsettled) {
    if (index > through) continue
    part.push(chunk)
    if (part.length < SETTLED_COUNT_MAX) continue
    yield part
    part = []
  }
  if (part.length > 0) yield part
}

function isNews(row: ServerRow | undefined, { incarnation, marks }: Heard): boolean {
  return row !== undefined && row.incarnation === incarnation && marks > (row.marks ?? 0)
}
