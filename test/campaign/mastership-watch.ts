/**
 * Asks every metadata server, again and again and directly, what it takes itself for. Only a master answers,
 * with its term: an answer of an older term, asked for after a newer one had answered, is a second master that
 * acknowledges; so are two servers that answer for one term.
 */
import { performance } from 'node:perf_hooks'
import { setTimeout as pause } from 'node:timers/promises'
import { hostAuthenticator } from '../../core/cli/authentication.ts'
import { dial } from '../../core/cli/dial.ts'
import { EtcDirectory, parseAddress } from '../../core/cli/etc.ts'
import { type MetadataMethods, metadataMethods } from '../../core/wire/messages/metadata.ts'
import type { ClusterStatistics } from '../../core/wire/messages/statistics.ts'
import type { Authenticator, Caller, Identity, Peer } from '../../core/wire/types.ts'
import { CLUSTER, type QuorumCluster } from '../integration/support/quorum-cluster.ts'

const PERIOD_MS = 200
const ANSWER_TIMEOUT_MS = 5_000
const identity: Identity = {
  ...{ role: 'admin', clusterName: CLUSTER, clusterUuid: '', session: 0, name: 'watch' },
}

interface Answer {
  readonly member: number
  readonly term: number
  readonly calledMs: number
  readonly returnedMs: number
}

export class MastershipWatch {
  readonly #authenticator: Authenticator
  readonly #answers: Answer[] = []
  readonly #watching: Promise<void>[]
  #isOver = false

  constructor(cluster: QuorumCluster) {
    this.#authenticator = hostAuthenticator(new EtcDirectory(cluster.host.etc), CLUSTER)
    this.#watching = cluster.members.map(({ id, place }) => this.#watch(id, place.address))
  }

  get answerCount(): number {
    return this.#answers.length
  }

  get termCount(): number {
    return new Set(this.#answers.map(({ term }) => term)).size
  }

  async #watch(member: number, base: string): Promise<void> {
    const { host, port } = parseAddress(base)
    let peer: Peer | null = null
    while (!this.#isOver) {
      try {
        peer ??= await dial({ host, port: port + 1 }, identity, this.#authenticator)
        await this.#ask(member, peer.caller<MetadataMethods>(metadataMethods))
      } catch {
        // Not the master, not running, cut off: it acknowledges nothing.
        peer?.close('asked again')
        peer = null
      }
      await pause(PERIOD_MS)
    }
    peer?.close('done')
  }

  async #ask(member: number, caller: Caller<MetadataMethods>): Promise<void> {
    const calledMs = performance.now()
    const options = { timeoutMs: ANSWER_TIMEOUT_MS }
    const { mds } = (await caller.call('admin.stat', {}, options)) as ClusterStatistics
    const term = mds.find((server) => server.master)?.term
    if (term !== undefined) this.#answers.push({ member, term, calledMs, returnedMs: performance.now() })
  }

  async stop(): Promise<void> {
    this.#isOver = true
    await Promise.all(this.#watching)
  }

  /** What is wrong; empty: nothing. */
  check(): string[] {
    return contradictions(this.#answers)
  }
}

export function contradictions(answers: readonly Answer[]): string[] {
  const masterOf = new Map<number, number>()
  const problems: string[] = []
  for (const { member, term } of answers) {
    const known = masterOf.get(term) ?? member
    masterOf.set(term, known)
    if (known !== member) problems.push(`MDS#${known} and MDS#${member} both were the master of term ${term}`)
  }
  const byReturn = answers.toSorted((a, b) => a.returnedMs - b.returnedMs)
  let newest: Answer | undefined
  let next = 0
  for (const answer of answers.toSorted((a, b) => a.calledMs - b.calledMs)) {
    for (let before = byReturn[next]; before !== undefined; before = byReturn[next]) {
      if (before.returnedMs >= answer.calledMs) break
      if (newest === undefined || before.term > newest.term) newest = before
      next += 1
    }
    if (newest !== undefined && answer.term < newest.term)
      problems.push(
        `MDS#${answer.member} answered in term ${answer.term} after MDS#${newest.member} had answered in term ${newest.term}`,
      )
  }
  return problems
}
