/**
 * Which fault comes next: of the kinds that may strike now the rarest, so that all of them become equally many. What
 * may be struck at a moment is bounded by what the promises cover, so that every byte lost is a bug:
 *
 *   metadata servers   one at a time, until it has caught up; or all, when all are well
 *   chunk servers      at most replicas-1, until all chunks are healthy again; a harmful fault begins only while
 *                      all of them are well, and alone among the harmful ones
 *   clients            at most CLIENTS_AT_ONCE
 *
 * A host has one fault at a time. Pure: it knows no time and no processes.
 */
import type { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import type { HostRole } from '../integration/support/network.ts'
import { type FaultKind, faultKinds, type FaultName } from './faults.ts'

const AT_ONCE_MAX = 4
const CHUNK_SERVERS_AT_ONCE = 2
const CLIENTS_AT_ONCE = 2

export interface StruckHost {
  readonly name: string
  readonly role: HostRole
}

/** That lasts, or from which the cluster has not recovered yet. */
export interface RunningFault {
  readonly kind: FaultName
  readonly host: StruckHost
}

export interface FaultChoice<Host extends StruckHost> {
  readonly kind: FaultName
  readonly host: Host
}

/** Null: none may strike now, or a rarer one waits for quiet. */
export function chooseFault<Host extends StruckHost>(
  kinds: readonly FaultName[],
  countOf: (kind: FaultName) => number,
  hosts: readonly Host[],
  running: readonly RunningFault[],
  random: SeededRandom,
): FaultChoice<Host> | null {
  if (running.length >= AT_ONCE_MAX) return null
  const order = kinds
    .map((kind) => ({ kind, count: countOf(kind), chance: random.float() }))
    .toSorted((a, b) => a.count - b.count || a.chance - b.chance)
  let waitsForQuiet = false
  for (const { kind } of order) {
    const { harms, role }: FaultKind = faultKinds[kind]
    const allowed = hosts.filter(
      (host) =>
        (role === 'any' || host.role === role) &&
        mayStrike(kind, host, running) &&
        !(waitsForQuiet && host.role === 'cs'),
    )
    const host = allowed[random.below(Math.max(1, allowed.length))]
    if (host !== undefined) return { kind, host }
    if (harms === true) waitsForQuiet = true
  }
  return null
}

function mayStrike(kind: FaultName, host: StruckHost, running: readonly RunningFault[]): boolean {
  if (running.some((fault) => fault.host.name === host.name)) return false
  const { harms }: FaultKind = faultKinds[kind]
  const beside = running.filter((fault) => fault.host.role === host.role)
  if (beside.some((fault) => strikesAll(fault.kind))) return false
  switch (host.role) {
    case 'mds':
      return beside.length === 0
    case 'cs':
      return harms === true ? beside.length === 0 : beside.length < CHUNK_SERVERS_AT_ONCE
    case 'client':
      return beside.length < CLIENTS_AT_ONCE
  }
}

/** All servers of its role at once. */
export function strikesAll(kind: FaultName): boolean {
  return kind === 'mds-kill-all' || kind === 'cs-kill-all'
}
