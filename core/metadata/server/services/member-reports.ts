/**
 * What clients and chunk servers say about replicas. A client's report is a request (rule A1): the master
 * checks the server itself, also what the server is said to have answered, never goes below `min` on one client's
 * word, and tells a client that alone sees failures to hold. A bad page costs one page: it is repaired, the replica stays (rule R1).
 */
import { mark } from '../../../base/coverage.ts'
import type { ChunkServerUpMethods } from '../../../wire/messages/chunk.ts'
import type { leaseMethods } from '../../../wire/messages/metadata.ts'
import type { ParamsOf } from '../../../wire/messages/method.ts'
import type { EventRecorder } from '../../control/servers/event-recorder.ts'
import { inSyncSinceOf, type Joins, type Source, SOURCE_COUNT_MAX } from '../../control/replication/joins.ts'
import type { Master } from '../../control/servers/master.ts'
import type { MissingPages } from '../../control/replication/missing-pages.ts'
import type { Recovery } from '../../control/replication/recovery.ts'
import type { ServerConnection } from '../../control/servers/server-connection.ts'
import { codeOf } from '../../../base/errors.ts'
import { wireError } from '../../errors.ts'
import { isHeldBy, placementOf } from '../../chunks/sharing.ts'
import type { ChunkRow } from '../../state/rows.ts'
import type { IntentService } from './intent-service.ts'
import type { Located, Locations } from './locations.ts'

type Report = ParamsOf<typeof leaseMethods, 'chunk.report'>
type BadPages = ParamsOf<ChunkServerUpMethods, 'cs.badPages'>
type BadReplica = ParamsOf<ChunkServerUpMethods, 'cs.badReplica'>

/** What a server is said to have answered: it is asked whether that is so. */
const serverFaults = new Set(['DISK_FAILED', 'DISK_FULL', 'NO_REPLICA', 'NOT_IN_SYNC'])
/** It has restarted: what nobody can blame on the client's network, and nobody needs to leave for. */
const RESTARTED = 'WRONG_INCARNATION'
const DESCRIBE_TIMEOUT_MS = 2_000
/** Servers that answer the master and that one client may blame within the window. */
const BLAMED_COUNT_MAX = 2
const BLAME_WINDOW_MS = 60_000
const BLAMING_CLIENT_COUNT_MAX = 10_000
const REPAIR_TIMEOUT_MS = 60_000

export interface MemberReportParts {
  readonly master: Master
  readonly recovery: Recovery
  readonly joins: Joins
  readonly missingPages: MissingPages
  readonly events: EventRecorder
  readonly intents: IntentService
  readonly locations: Locations
  readonly connectionOf: (server: number) => ServerConnection | undefined
  readonly answers: (server: number) => Promise<boolean>
  /** A client cannot reach it either. */
  readonly giveUpAwaited: (server: number) => void
}

export class MemberReports {
  readonly #parts: MemberReportParts
  /** Session -> server -> when it was blamed. */
  readonly #blamed = new Map<number, Map<number, number>>()

  constructor(parts: MemberReportParts) {
    this.#parts = parts
  }

  async fromClient(session: number, report: Report): Promise<Located> {
    const { master, locations, intents } = this.#parts
    const { chunk, inode, version, server } = report
    const row = master.state.chunks.get(chunk)
    if (row === undefined || !isHeldBy(row, inode)) return locations.located(inode, [])
    if (report.kind === 'bad-page') {
      if (report.page !== undefined) this.#repair(row, server, [report.page], report.reason)
      return locations.located(inode, [chunk])
    }
    // Rule E6: about an older epoch, or a member that has left: the next epoch is the answer.
    const member = row.members.find((candidate) => candidate.server === server)
    const isCurrent = row.version === version && row.pending === null && !row.dirtyDead
    if (!isCurrent) mark('a report about an older epoch is answered with the next one')
    if (isCurrent && member !== undefined) await this.#maybeRemove(session, row, report)
    await intents.awaitSettled([chunk])
    return locations.located(inode, [chunk])
  }

  /** Ends the count of a session. */
  sessionEnded(session: number): void {
    this.#blamed.delete(session)
  }

  badPages(connection: ServerConnection, { chunk, version, pages, reason }: BadPages): void {
    const row = this.#parts.master.state.chunks.get(chunk)
    if (row === undefined || row.version !== version) return
    this.#repair(row, connection.server, pages, reason)
  }

  badReplica(connection: ServerConnection, { chunk, version, reason }: BadReplica): void {
    const { server } = connection
    const row = this.#parts.master.state.chunks.get(chunk)
    if (row === undefined) return
    // What follows an epoch that is still pending may fail, too: it is not said again.
    const members = version === row.pending?.version ? row.pending.members : row.members
    const isCurrent = version === row.version || version === row.pending?.version
    if (!isCurrent || !members.some((member) => member.server === server)) return
    const message = `CS#${server} has reported hard error on chunk ${chunk} of inode ${row.inode}: ${reason}`
    this.#parts.events.record('CS', 'warn', 'HARD_ERROR', message, `${server} ${chunk}`)
    this.#parts.recovery.memberFailed(chunk, server, 'exists', 'urgent')
  }

  async #maybeRemove(session: number, row: ChunkRow, report: Report): Promise<void> {
    const { master, recovery, answers, giveUpAwaited } = this.#parts
    const { chunk, version, server, reason } = report
    // rule R1: one page, which the server has reported: it is repaired, or lost, and then sent again
    if (reason === 'BAD_CHECKSUM') throw wireError('TRY_AGAIN', `a page on CS#${server} is being repaired`)
    const isAnswering = await answers(server)
    if (!isAnswering && !serverFaults.has(reason) && reason !== RESTARTED) giveUpAwaited(server)
    const isFaulty = isAnswering && serverFaults.has(reason) && (await this.#isFaulty(chunk, server))
    const current = master.state.chunks.get(chunk)
    if (current === undefined || current.version !== version || current.pending !== null) return
    if (isAnswering && !isFaulty && !this.#mayRemove(session, row, server, reason)) {
      if (reason === RESTARTED) this.#beginAnew(current)
      throw wireError('TRY_AGAIN', `CS#${server} answers the metadata server: hold and try it again`)
    }
    const others = current.members.filter((member) => member.role === 'in-sync' && member.server !== server)
    const isJoining = current.members.some((member) => member.server === server && member.role === 'joining')
    if (others.length === 0 && !isJoining) return this.#lastMember(current, server, reason, isAnswering)
    const message = `CS#${server} leaves chunk ${chunk} of inode ${row.inode}: ${reason}`
    this.#parts.events.record('CS', 'warn', 'MEMBER_REMOVED', message, String(server))
    recovery.memberFailed(chunk, server, 'exists', 'first')
    await recovery.decided(chunk)
  }

  /** Rule G2: never removed. */
  #lastMember(row: ChunkRow, server: number, reason: string, isAnswering: boolean): void {
    if (isAnswering && reason === RESTARTED) this.#beginAnew(row)
    throw wireError('TRY_AGAIN', `CS#${server} has the last replica of this chunk`)
  }

  /** A new process among the members gets a new version, under which everything is sent again (F5). */
  #beginAnew({ chunk, version, members }: ChunkRow): void {
    const epoch = { chunk, from: version, members: [...members], reconcile: false, leaving: [] }
    this.#parts.master.submit({ type: 'epoch.propose', epochs: [epoch] })
  }

  /** Rule A1: what does the server say itself? */
  async #isFaulty(chunk: number, server: number): Promise<boolean> {
    const connection = this.#parts.connectionOf(server)
    if (connection === undefined) return true
    try {
      const options = { timeoutMs: DESCRIBE_TIMEOUT_MS }
      return (await connection.orders.call('replica.describe', { chunk }, options)).fault !== ''
    } catch (error) {
      // A server of an older version cannot say.
      return ['NO_REPLICA', 'UNKNOWN_METHOD'].includes(codeOf(error))
    }
  }

  #mayRemove(session: number, row: ChunkRow, server: number, reason: string): boolean {
    if (row.members.some((member) => member.server === server && member.role === 'joining')) return true
    const placement = placementOf(this.#parts.master.state, row)
    if (placement === undefined) return false
    const left = row.members.filter((member) => member.role === 'in-sync' && member.server !== server)
    if (left.length < placement.replicasMinimum) return false
    return reason === RESTARTED || this.#blame(session, server)
  }

  /** False: this client sees failures everywhere, and the master does not. */
  #blame(session: number, server: number): boolean {
    const nowMs = this.#parts.master.clock.nowMs()
    let blamed = this.#blamed.get(session)
    if (blamed === undefined) {
      if (this.#blamed.size >= BLAMING_CLIENT_COUNT_MAX) return false
      blamed = new Map()
      this.#blamed.set(session, blamed)
    }
    for (const [other, atMs] of blamed) if (nowMs - atMs > BLAME_WINDOW_MS) blamed.delete(other)
    if (!blamed.has(server) && blamed.size >= BLAMED_COUNT_MAX) return false
    blamed.set(server, nowMs)
    return true
  }

  /** From any in-sync member where the pages verify; nobody may have them: lost pages (rules R1, J7). */
  #repair(row: ChunkRow, server: number, pages: readonly number[], reason: string): void {
    const { master, events, connectionOf, missingPages } = this.#parts
    const { chunk, version } = row
    const connection = connectionOf(server)
    if (connection === undefined || !row.members.some((member) => member.server === server)) return
    const what = `${pages.length} pages of chunk ${chunk} of inode ${row.inode}`
    const found = `CS#${server} has reported hard error on ${what}: ${reason}`
    events.record('CS', 'warn', 'BAD_PAGES', found, `${server} ${chunk}`)
    missingPages.add(chunk)
    const [sources, formers] = this.#whoMayHave(row, server)
    const order = { chunk, version, pages: [...pages], sources, formers, inSyncSince: inSyncSinceOf(row) }
    connection.orders
      .call('replica.repair', order, { timeoutMs: REPAIR_TIMEOUT_MS })
      .then(({ repaired, lost }) => {
        if (master.isStopped) return
        if (repaired + lost >= pages.length) missingPages.delete(chunk)
        if (repaired > 0) {
          const message = `CS#${server} repaired ${repaired} pages of chunk ${chunk} of inode ${row.inode}`
          events.record('CS', 'info', 'PAGES_REPAIRED', message)
        }
        if (lost > 0) {
          const message = `${lost} pages of chunk ${chunk} of inode ${row.inode} are lost: no replica verifies them`
          events.record('CS', 'err', 'PAGES_LOST', message)
        }
      })
      .catch((error: unknown) => {
        // Found again by the next read or scrub.
        master.logger.warn('repair failed', { chunk, server, error: String(error) })
      })
  }

  /**
   * Members in sync; and those that join or have left, which are asked when no member in sync has the page. Who
   * is silent counts too: the page stays bad and is not called lost until it has answered, its replica is
   * deleted, or its server is given up (rules R1, J7). The chunk server asks again.
   */
  #whoMayHave(row: ChunkRow, except: number): [Source[], Source[]] {
    const { servers } = this.#parts.master.state
    const inSync = new Set(row.members.filter(({ role }) => role === 'in-sync').map(({ server }) => server))
    const others = [...row.members, ...(row.pending?.members ?? []), ...row.former]
      .map(({ server }) => server)
      .filter((server) => !inSync.has(server))
      .filter((server) => ['active', 'inactive'].includes(servers.get(server)?.state ?? ''))
    const addresses = (holders: Set<number>): Source[] =>
      [...holders]
        .filter((server) => server !== except)
        .map((server) => this.#parts.joins.addressOf(server))
        .filter((source) => source !== null)
        .slice(0, SOURCE_COUNT_MAX)
    return [addresses(inSync), addresses(new Set(others))]
  }

  /** fsck asks for it. */
  repairByOrder(chunk: number, server: number, page: number | undefined, reason: string): void {
    const row = this.#parts.master.state.chunks.get(chunk)
    if (row === undefined || !row.members.some((member) => member.server === server)) {
      throw wireError('NOT_FOUND', `CS#${server} has no replica of chunk ${chunk}`)
    }
    if (page !== undefined) this.#repair(row, server, [page], reason)
    else this.#parts.recovery.memberFailed(chunk, server, 'exists', 'urgent')
  }
}
