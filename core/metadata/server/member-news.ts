/**
 * Tells clients and chunk servers where the metadata servers are: whoever connects, and everybody when one comes,
 * moves or leaves. It is what they follow when the whole cluster moves, one member after the other. Of the master
 * only; best effort: who misses it asks discovery.
 */
import { type RegisterMethods, registerMethods } from '../../wire/messages/membership.ts'
import type { ParamsOf } from '../../wire/messages/method.ts'
import type { Peer } from '../../wire/types.ts'
import type { Master } from '../control/servers/master.ts'

/** Told in one turn: there may be thousands. */
const TOLD_AT_ONCE = 256
const REGISTER_COMMANDS: readonly string[] = ['mds.add', 'mds.member', 'mds.state']

export class MemberNews {
  readonly #master: Master
  readonly #peers = new Set<Peer>()
  /** Of the peers above, who is still to be told; null: nobody. */
  #telling: Iterator<Peer> | null = null

  constructor(master: Master) {
    this.#master = master
    master.onApplied(({ command }) => {
      if (!REGISTER_COMMANDS.includes(command.type)) return
      if (this.#telling === null) this.#defer()
      this.#telling = [...this.#peers].values()
    })
  }

  /** A connection of a client or chunk server; forgotten when it ends. */
  add(peer: Peer): void {
    this.#peers.add(peer)
    peer.onClosed(() => this.#peers.delete(peer))
    this.#tell(peer)
  }

  #defer(): void {
    this.#master.defer(() => {
      for (let count = 0; count < TOLD_AT_ONCE; count++) {
        const next = this.#telling?.next()
        if (next?.done !== false) {
          this.#telling = null
          return
        }
        this.#tell(next.value)
      }
      this.#defer()
    })
  }

  #tell(peer: Peer): void {
    peer.caller(registerMethods).notify('mds.members', this.#register)
  }

  get #register(): ParamsOf<RegisterMethods, 'mds.members'> {
    const rows = [...this.#master.state.members.values()].filter(({ state }) => state === 'member')
    return { servers: rows.map(({ host, port }) => ({ host, port })) }
  }
}
