/**
 * Who of the metadata servers is there, asked of each by itself: for when no master answers. Needs the cluster's
 * key and no majority. What one of them says may be old; who answers at all is as new as can be.
 */
import os from 'node:os'
import { CairnError } from '../base/errors.ts'
import { addressKey } from '../discovery/metadata-servers.ts'
import type { Address } from '../platform/network.ts'
import type { ResultOf } from '../wire/messages/method.ts'
import { OBSERVER_ROLE, type ObserverMethods, observerMethods } from '../wire/messages/quorum.ts'
import type { Authenticator } from '../wire/types.ts'
import { dial } from './dial.ts'
import { parseAddress } from './etc.ts'

const ANSWER_TIMEOUT_MS = 2_000
/** Addresses that nobody names are asked, too: a list that is out of date must not hide a majority. */
const ADDRESSES_MAX = 64

export type Look = ResultOf<ObserverMethods, 'mds.look'>

export interface SurveyedMember {
  readonly id: number
  /** Base address. */
  readonly address: string
  readonly host: string
  readonly isVoter: boolean
  /** Null: no answer. */
  readonly look: Look | null
}

export interface Survey {
  readonly uuid: string
  /** As the member that knows most says; by rising id. */
  readonly members: readonly SurveyedMember[]
  /** Of those that decide, how many have to agree. */
  readonly neededCount: number
  /** Its knowledge of the cluster. */
  readonly best: Look
}

/** The cluster is there, but no majority of its metadata servers agrees on a master. */
export class NoQuorumError extends CairnError {
  readonly survey: Survey

  constructor(cluster: string, survey: Survey) {
    super('UNREACHABLE', describe(cluster, survey), { next: nextStep(survey), retryable: true })
    this.survey = survey
  }
}

/** Null when none of them answers. */
export async function surveyMembers(
  cluster: string,
  addresses: readonly Address[],
  authenticator: Authenticator,
): Promise<Survey | null> {
  const answers = new Map<string, { look: Look; uuid: string } | null>()
  let asking: readonly Address[] = addresses
  while (asking.length > 0) {
    await Promise.all(
      asking.map(async (address) => {
        answers.set(addressKey(address), await lookAt(cluster, address, authenticator))
      }),
    )
    asking = [...answers.values()]
      .flatMap((answer) => answer?.look.members ?? [])
      .filter(({ address }) => address !== '')
      .map(({ address }) => parseAddress(address))
      .filter((address) => !answers.has(addressKey(address)))
      .slice(0, Math.max(0, ADDRESSES_MAX - answers.size))
  }
  const heard = [...answers.values()].filter((answer) => answer !== null)
  const best = heard.toSorted((a, b) => b.look.lastIndex - a.look.lastIndex)[0]
  if (best === undefined) return null
  const looks = new Map(heard.map(({ look }) => [look.member, look]))
  const members = best.look.members.map(({ id, address, host, isVoter }) => ({
    ...{ id, address, host, isVoter },
    look: looks.get(id) ?? null,
  }))
  const neededCount = Math.floor(members.filter(({ isVoter }) => isVoter).length / 2) + 1
  return { uuid: best.uuid, members, neededCount, best: best.look }
}

async function lookAt(
  clusterName: string,
  { host, port }: Address,
  authenticator: Authenticator,
): Promise<{ look: Look; uuid: string } | null> {
  const name = `${os.hostname()} cairn ${process.pid}`
  const identity = { role: OBSERVER_ROLE, clusterName, clusterUuid: '', session: 0, name }
  const limits = { handshakeTimeoutMs: ANSWER_TIMEOUT_MS }
  try {
    const peer = await dial({ host, port: port + 1 }, identity, authenticator, undefined, limits)
    try {
      const uuid = peer.remoteIdentity?.clusterUuid ?? ''
      const caller = peer.caller(observerMethods)
      return { look: await caller.call('mds.look', {}, { timeoutMs: ANSWER_TIMEOUT_MS }), uuid }
    } finally {
      peer.close('done')
    }
  } catch {
    // Not there, silent, or not of this cluster: for the survey it is all the same.
    return null
  }
}

export const NO_ANSWER = 'no answer'

/** `active` answers, as does `catching up`, which has no vote yet. */
export function statusOf({ look, isVoter }: SurveyedMember): string {
  if (look === null) return NO_ANSWER
  return isVoter ? 'active' : 'catching up'
}

function describe(cluster: string, { members, neededCount }: Survey): string {
  const voters = members.filter(({ isVoter }) => isVoter)
  const there = voters.filter(({ look }) => look !== null)
  const missing = voters.filter(({ look }) => look === null)
  const counts = `${there.length} of ${voters.length} metadata servers ${there.length === 1 ? 'answers' : 'answer'}`
  if (there.length >= neededCount)
    return `cluster '${cluster}' has no master: ${counts}, enough of them, but they do not agree on one (${there.map(reachOf).join('; ')})`
  return (
    `cluster '${cluster}' has no quorum: ${counts} (${there.map(nameOf).join(', ')}), and it takes ${neededCount}; ` +
    `no answer from ${missing.map(nameOf).join(', ')}`
  )
}

function nextStep({ members, neededCount }: Survey): string {
  const thereCount = members.filter(({ isVoter, look }) => isVoter && look !== null).length
  if (thereCount >= neededCount)
    return 'an election takes a second or two: try again; if it stays so, look at the network between their base ports'
  return (
    'start those that do not answer: everything goes on by itself then, and nothing is lost; ' +
    'if they never come back see "When a majority is lost" in docs/administration.md'
  )
}

function nameOf({ id, address }: SurveyedMember): string {
  return address === '' ? `MDS#${id}` : `MDS#${id} at ${address}`
}

function reachOf(member: SurveyedMember): string {
  const reached = member.look?.members.filter(({ isVoter, isConnected }) => isVoter && isConnected) ?? []
  return `MDS#${member.id} reaches ${reached.map(({ id }) => `MDS#${id}`).join(', ')}`
}
