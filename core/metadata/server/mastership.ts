/**
 * What a member is while it is the master: the control plane on its applied state, from the moment it has
 * applied an entry of its own term until it loses its place. A new one begins like a restarted one: sessions
 * count from now (rule L1), timers start anew (rule L11), nothing is collected before the reports are in (G1).
 */
import type { Clock } from '../../platform/clock.ts'
import type { Logger } from '../../platform/logger.ts'
import { formatAddress } from '../../platform/network.ts'
import type { KeyStore } from '../../platform/key-ring.ts'
import type { PasswordExchange } from '../../platform/password.ts'
import type { Random } from '../../platform/random.ts'
import { PASSWORD_ROLE } from '../../wire/authentication/key-authenticator.ts'
import { keyMethods } from '../../wire/messages/authentication.ts'
import type { ChunkServerUpMethods } from '../../wire/messages/chunk.ts'
import { chunkServerUpMethods } from '../../wire/messages/chunk.ts'
import { type MetadataMethods, metadataMethods } from '../../wire/messages/metadata.ts'
import type { Handlers, Peer } from '../../wire/types.ts'
import { AuthenticationService } from '../authentication/service.ts'
import type { ChunkState } from '../chunks/handlers.ts'
import { Master } from '../control/servers/master.ts'
import { Formation } from '../quorum/formation.ts'
import { MemberWatch } from '../quorum/member-watch.ts'
import type { MembersView } from '../quorum/members-view.ts'
import type { RaftLog } from '../quorum/raft-log.ts'
import { successorOf } from '../quorum/successor.ts'
import type { MemberPlace } from '../quorum/transport.ts'
import type { BackupSource } from './services/backup-service.ts'
import { clientHandlers } from './client-handlers.ts'
import { ControlPlane } from './control-plane.ts'
import { guarded } from './guarded.ts'
import { MemberNews } from './member-news.ts'
import { SilenceWatch } from './silence-watch.ts'

export interface MetadataAuthentication {
  readonly keys: KeyStore
  readonly loadExchange: () => Promise<PasswordExchange>
}

export interface MastershipParts {
  readonly state: ChunkState
  readonly log: RaftLog
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
  readonly members: MembersView
  readonly clusterName: string
  readonly clusterUuid: string
  /** Where this member is. */
  readonly place: MemberPlace
  readonly onShutdown: () => void
  readonly authentication?: MetadataAuthentication
  /** The feature level that a member announced; null when there is no connection to it. */
  readonly levelOf: (member: number) => number | null
  readonly backups: BackupSource | null
}

const TICK_MS = 10_000

export class Mastership {
  readonly control: ControlPlane
  readonly formation: Formation
  readonly #parts: MastershipParts
  readonly #master: Master
  readonly #watch: MemberWatch
  readonly #news: MemberNews
  readonly #chunkServerHandlers: Handlers<ChunkServerUpMethods>
  readonly #clientHandlers: Handlers<MetadataMethods>
  readonly #authentication: AuthenticationService | null

  constructor(parts: MastershipParts) {
    this.#parts = parts
    const { log } = parts
    const master = new Master(parts)
    this.#master = master
    const { levelOf, place } = parts
    const formation: Formation = new Formation({
      ...{ master, log, levelOf, place },
      event: (severity, code, message, subject) =>
        this.control.events.record('MDS', severity, code, message, subject),
    })
    this.formation = formation
    this.#news = new MemberNews(master)
    this.#watch = new MemberWatch({
      master,
      members: parts.members,
      status: () => log.status,
      event: (system, severity, code, text) => this.control.events.record(system, severity, code, text),
    })
    this.control = new ControlPlane({ ...parts, master, formation })
    const { authentication, clusterName } = parts
    this.#authentication =
      authentication === undefined
        ? null
        : new AuthenticationService({
            ...authentication,
            ...{ master, clusterName, events: this.control.events },
          })
    this.#chunkServerHandlers = guarded<ChunkServerUpMethods>(log, this.control.chunkServerHandlers())
    this.#clientHandlers = guarded<MetadataMethods>(log, clientHandlers(this.control))
  }

  start(): void {
    const { clock, log, place, levelOf } = this.#parts
    const master = this.#master
    this.#authentication?.start()
    this.control.start()
    let tickMs = clock.nowMs()
    master.every(TICK_MS, () => {
      const nowMs = clock.nowMs()
      master.submit({ type: 'tick', elapsedMs: nowMs - tickMs })
      tickMs = nowMs
    })
    this.formation.start()
    this.#watch.start()
    new SilenceWatch({
      master,
      lastConfirmedMs: () => this.control.sessions.lastConfirmedMs,
      successor: () => successorOf(log.status, (member) => levelOf(member) !== null),
      handOver: (to) => void log.transferLeader(to),
    }).start()
    const message = `MDS#${log.member} at ${formatAddress(place.address)} became master`
    this.control.events.record('JRN', 'info', 'MASTER_ELECTED', message)
  }

  serve(peer: Peer): void {
    const role = peer.remoteIdentity?.role
    const { log } = this.#parts
    const authentication = this.#authentication
    if (role === PASSWORD_ROLE) {
      // It has proved nothing yet: nothing else is served to it.
      authentication?.serve(peer)
      return
    }
    if (role === 'cs') {
      peer.serve(chunkServerUpMethods, this.#chunkServerHandlers)
      this.#news.add(peer)
      return
    }
    peer.serve(metadataMethods, this.#clientHandlers)
    if (role === 'client') this.#news.add(peer)
    if (role === 'admin' && authentication !== null)
      peer.serve(keyMethods, guarded(log, authentication.keyHandlers()))
  }

  /** A member gets a copy of the whole state. */
  fullResync(member: number): void {
    this.#watch.fullResync(member)
  }

  copyFailed(member: number, reason: string): void {
    this.#watch.copyFailed(member, reason)
  }

  stop(): void {
    this.#master.stop()
  }
}
