/**
 * Compares what a chunk server says it has with what the quorum committed, both ways. Reports decide
 * nothing: they lead to proposals and condemnations that `apply` checks again (rules E6, E8, G1, B1).
 */
import type { ReplicaReport } from '../../wire/messages/chunk.ts'
import { mark } from '../../base/coverage.ts'
import { IdSet } from '../state/columns/id-set.ts'
import { isKeptUnknown } from '../chunks/administration.ts'
import { committedVersion } from '../chunks/condemning.ts'
import { isMember } from '../chunks/replicas.ts'
import type { ChunkRow, CondemnedRow } from '../state/rows.ts'
import type { DamagedReplicas } from './replication/damaged-replicas.ts'
import type { EventRecorder } from './servers/event-recorder.ts'
import type { Garbage } from './replication/garbage.ts'
import type { Merges } from './replication/merges.ts'
import type { Master } from './servers/master.ts'
import type { Recovery } from './replication/recovery.ts'
import type { ServerConnection } from './servers/server-connection.ts'
import type { Doubt, Troubles } from './servers/troubles.ts'

const COMMAND_ITEMS_MAX = 1024
/** Of the chunk table, looked at in one step. */
const SLOTS_PER_STEP = 8192
const FORMER_PER_STEP = 1024

export interface ReportParts {
  readonly master: Master
  readonly recovery: Recovery
  readonly troubles: Troubles
  readonly garbage: Garbage
  readonly damaged: DamagedReplicas
  readonly events: EventRecorder
  readonly merges: Merges
  /** Ids whose replicas are being created for a command that is not applied yet. */
  readonly isCreating: (chunk: number) => boolean
}

interface FormerChange {
  readonly chunk: number
  readonly server: number
  readonly version: number
  readonly exists: boolean
}

export class ReportProcessing {
  readonly #parts: ReportParts
  /** Of overlays that are kept and that nobody knows (rule G1): their parents are not written in place. */
  readonly #overlaid = new Set<number>()

  constructor(parts: ReportParts) {
    this.#parts = parts
  }

  isOverlaid(chunk: number): boolean {
    return this.#overlaid.has(chunk)
  }

  /** A replica that the quorum counts on is missing or cannot be read. */
  isVoid(row: ChunkRow): boolean {
    const { troubles, damaged } = this.#parts
    for (const kind of troubles.failedOf(row.chunk).values()) if (kind === 'lost') return true
    return !damaged.isEmpty && row.members.some(({ server }) => damaged.has(row.chunk, server))
  }

  /** One page of the report. Answers with the replicas that need a promotion once orders may be sent. */
  page(connection: ServerConnection, replicas: readonly ReplicaReport[]): void {
    const unknown: CondemnedRow[] = []
    const former: FormerChange[] = []
    const overlays: { chunk: number; parent: number }[] = []
    for (const replica of replicas) {
      connection.reported?.add(replica.chunk)
      const { chunk, parent = 0 } = replica
      // Also what was merged while nobody listened (rule S3).
      if (parent !== this.#parts.merges.parentOf(chunk, connection.server)) overlays.push({ chunk, parent })
      const row = this.#parts.master.state.chunks.get(replica.chunk)
      if (row === undefined) this.#unknown(connection.server, replica, unknown)
      else this.#known(connection, row, replica, former)
    }
    this.#submitCondemned(unknown)
    this.#submitFormer(former)
    if (overlays.length > 0) this.#parts.merges.merged(connection.server, overlays)
  }

  /** The report is complete: what the quorum believes to be there and is not. */
  async end(connection: ServerConnection): Promise<void> {
    const { state } = this.#parts.master
    const { server } = connection
    const reported = connection.reported ?? new IdSet()
    connection.reported = null
    let lostCount = 0
    // In short steps: nothing is created on the server before its report has ended.
    for (let slot = 0; slot >= 0; ) {
      slot = state.chunks.scanServer(server, slot, SLOTS_PER_STEP, (chunk) => {
        if (reported.has(chunk)) return
        lostCount += 1
        this.#parts.recovery.memberFailed(chunk, server, 'lost', 'urgent')
      })
      if (slot >= 0) await this.#turn()
    }
    if (lostCount > 0) {
      const message = `CS#${server} does not have ${lostCount} replicas that it should have`
      this.#parts.events.record('CS', 'err', 'REPLICAS_MISSING', message)
    }
    await this.#endFormer(server, reported)
    await this.#endCondemned(server, reported)
  }

  /** Former replicas that are not there any more. */
  async #endFormer(server: number, reported: IdSet): Promise<void> {
    const { chunks } = this.#parts.master.state
    let former: FormerChange[] = []
    let seenCount = 0
    for (const chunk of chunks.formerChunks()) {
      const entry = reported.has(chunk) ? undefined : chunks.formerOf(chunk, server)
      if (entry !== undefined) former.push({ chunk, server, version: entry.version, exists: false })
      if (++seenCount % FORMER_PER_STEP !== 0) continue
      this.#submitFormer(former)
      former = []
      // After the loss of a server there is one for each of its replicas.
      await this.#turn()
    }
    this.#submitFormer(former)
  }

  async #endCondemned(server: number, reported: IdSet): Promise<void> {
    const { condemned } = this.#parts.master.state
    for (let slot = 0; slot >= 0; ) {
      const replicas: { chunk: number; server: number }[] = []
      // After a mass deletion there are millions.
      slot = condemned.scan(slot, COMMAND_ITEMS_MAX, (chunk, holder) => {
        if (holder === server && !reported.has(chunk)) replicas.push({ chunk, server })
      })
      if (replicas.length > 0) this.#parts.master.submit({ type: 'replica.deleted', replicas })
      if (slot >= 0) await this.#turn()
    }
  }

  #turn(): Promise<void> {
    return new Promise<void>((resolve) => this.#parts.master.defer(resolve))
  }

  #unknown(server: number, replica: ReplicaReport, unknown: CondemnedRow[]): void {
    const { master, garbage, isCreating } = this.#parts
    const { chunk, version } = replica
    if (chunk >= master.state.counters.get('nextChunk')) return garbage.alarm(server, chunk, version)
    // Rule G1: somebody we do not remember may have made it.
    if (isCreating(chunk)) return
    if (isKeptUnknown(master.state, chunk)) {
      if (replica.parent !== undefined && replica.parent !== 0) this.#overlaid.add(replica.parent)
      return
    }
    const { condemned } = master.state
    if (!condemned.has(chunk, server) || condemned.versionMaxOf(chunk, server) < version)
      unknown.push({ chunk, server, versionMax: version })
  }

  #known(connection: ServerConnection, row: ChunkRow, replica: ReplicaReport, former: FormerChange[]): void {
    const { recovery, troubles, garbage, master, damaged, events } = this.#parts
    const { chunk } = row
    const { server } = connection
    // Rule G1: newer than anything committed: never touched.
    if (replica.version > committedVersion(row)) return garbage.alarm(server, chunk, replica.version)
    // A former replica, too: it cannot re-join, and its place is needed (void, until it is made anew).
    if (replica.damaged) damaged.add(chunk, server)
    else damaged.delete(chunk, server)
    if (!isMember(row, server)) {
      const isCondemned = master.state.condemned.has(chunk, server)
      const isListed = row.former.some((entry) => entry.server === server)
      if (!isCondemned && !isListed) former.push({ chunk, server, version: replica.version, exists: true })
      recovery.look(chunk, row.intentLease === 0 ? 'later' : 'urgent')
      return
    }
    if (replica.damaged) {
      const message = `CS#${server} has reported hard error on chunk ${chunk} of inode ${row.inode}: its file is gone or its state is unreadable`
      events.record('CS', 'warn', 'REPLICA_DAMAGED', message, `${server} damaged`)
      return recovery.memberFailed(chunk, server, 'exists', 'urgent')
    }
    const doubt = this.#doubtOf(connection, row, replica)
    if (doubt !== null) {
      troubles.addUnclean(chunk, server, doubt)
      return recovery.memberUnclean(chunk)
    }
    this.#compare(connection, row, replica)
  }

  /**
   * Nobody knows what it has of the writes of its version. A joiner is unclean until it has joined, and that is all
   * right until it restarts: then its version rises, so that its writer sends again what is unanswered anywhere
   * (rules J4, E11).
   */
  #doubtOf(connection: ServerConnection, row: ChunkRow, replica: ReplicaReport): Doubt | null {
    const { version, role, unclean, restarted, crashed, rolledBack } = replica
    const member = row.members.find(({ server }) => server === connection.server)
    const isJoining = member?.role === 'joining' && version === row.version
    if (isJoining ? (restarted ?? unclean) : unclean)
      return rolledBack === true ? 'rolled-back' : crashed === false ? 'process' : 'crashed'
    if (isJoining || member === undefined || !connection.isRestarted) return null
    // Rule B3: it stopped in the middle of something, and should remember that it may have been written, or that it
    // had joined. Unless it never was, its disk went back to a moment before.
    const mayBeWritten =
      row.intentLease !== 0 || row.dirtyDead || this.#parts.master.state.unsettled.has(row.chunk)
    if (!mayBeWritten && (role === 'in-sync' || version !== row.version)) return null
    mark('a replica does not remember what it should')
    return 'unmarked'
  }

  #compare(connection: ServerConnection, row: ChunkRow, replica: ReplicaReport): void {
    const { recovery, events } = this.#parts
    const { chunk } = row
    const { server } = connection
    const member = row.members.find((candidate) => candidate.server === server)
    // In the pending epoch only: the driver asks it again.
    if (member === undefined) return
    if (replica.version < row.version) {
      // Rule E8: it had made this version durable before it became active, so its disk went back in time.
      if (member.role === 'in-sync') {
        const message = `CS#${server} reports chunk ${chunk} at version ${replica.version} instead of ${row.version}: its disk lost acknowledged writes`
        events.record('CS', 'err', 'REPLICA_ROLLED_BACK', message, String(server))
      }
      return recovery.memberFailed(chunk, server, 'exists', 'urgent')
    }
    const isUnpromoted = replica.version === row.version && replica.role !== 'in-sync' && row.pending === null
    if (member.role === 'in-sync' && isUnpromoted) connection.unpromoted.push({ chunk, version: row.version })
  }

  #submitCondemned(replicas: CondemnedRow[]): void {
    // Rule G1: the same page, perhaps, has just said that it is we who lost them.
    if (this.#parts.garbage.isStopped) return
    for (let at = 0; at < replicas.length; at += COMMAND_ITEMS_MAX) {
      const part = replicas.slice(at, at + COMMAND_ITEMS_MAX)
      this.#parts.master.submit({ type: 'replica.condemn', replicas: part })
    }
  }

  #submitFormer(changes: FormerChange[]): void {
    for (let at = 0; at < changes.length; at += COMMAND_ITEMS_MAX) {
      const replicas = changes.slice(at, at + COMMAND_ITEMS_MAX)
      this.#parts.master.submit({ type: 'replica.former', replicas }, () => {
        for (const { chunk, exists } of replicas) if (exists) this.#parts.recovery.look(chunk, 'later')
      })
    }
  }
}
