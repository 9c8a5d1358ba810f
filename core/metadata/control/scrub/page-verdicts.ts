/**
 * Which of several verified replicas is right about a page (rules P3, R2). Pure. The highest stamp wins; among
 * equal stamps the majority; without one the least bad guess, which is called so: a server that has not failed
 * otherwise, then the member that has been in sync longest, then the lowest number. Pages that do not verify are
 * no witnesses: they are repaired anyway (rule R1).
 */
import { PAGES_PER_REGION } from '../../../base/units.ts'
import { PAGE_RECORD_BYTES } from '../../../wire/data.ts'

/** States of a page record that was verified. */
const HOLE = 0
const DATA = 1

/** The page records of one region of one replica, as `replica.records` gives them. */
export interface Witness {
  readonly server: number
  /** Version since which it is in sync. */
  readonly since: number
  /** Its disk gave errors. */
  readonly isSuspect: boolean
  readonly records: Uint8Array
}

export interface PageRecord {
  readonly stamp: number
  readonly checksum: number
}

export interface PageVerdict {
  /** Within the region. */
  readonly index: number
  readonly right: PageRecord & { readonly servers: readonly number[] }
  readonly wrong: readonly (PageRecord & { readonly server: number })[]
  /** What decided. A guess may keep the older content. */
  readonly by: 'stamp' | 'majority' | 'guess'
}

interface Vote extends PageRecord {
  readonly witness: Witness
  readonly isHole: boolean
}

/** Of all pages on which verified replicas differ. */
export function judgeRegion(witnesses: readonly Witness[]): PageVerdict[] {
  const [first, ...others] = witnesses.map(({ records }) =>
    Buffer.from(records.buffer, records.byteOffset, records.byteLength),
  )
  const verdicts: PageVerdict[] = []
  if (first === undefined) return verdicts
  for (let index = 0; index < PAGES_PER_REGION; index++) {
    const begin = index * PAGE_RECORD_BYTES
    const end = begin + PAGE_RECORD_BYTES
    if (others.every((other) => other.compare(first, begin, end, begin, end) === 0)) continue
    const verdict = judgePage(witnesses, index)
    if (verdict !== null) verdicts.push(verdict)
  }
  return verdicts
}

function judgePage(witnesses: readonly Witness[], index: number): PageVerdict | null {
  const votes = witnesses.map((witness) => voteOf(witness, index)).filter((vote) => vote !== null)
  const [best] = votes.toSorted((a, b) => compareVotes(a, b, votes))
  if (best === undefined) return null
  const wrong = votes.filter((vote) => !isSame(vote, best))
  if (wrong.length === 0) return null
  const same = wrong.filter(({ stamp }) => stamp === best.stamp)
  const isMajority = same.every((vote) => supportOf(vote, votes) < supportOf(best, votes))
  return {
    index,
    right: {
      stamp: best.stamp,
      checksum: best.checksum,
      servers: votes.filter((vote) => isSame(vote, best)).map(({ witness }) => witness.server),
    },
    wrong: wrong.map(({ stamp, checksum, witness }) => ({ stamp, checksum, server: witness.server })),
    by: same.length === 0 ? 'stamp' : isMajority ? 'majority' : 'guess',
  }
}

function voteOf(witness: Witness, index: number): Vote | null {
  const { buffer, byteOffset, byteLength } = witness.records
  const view = new DataView(buffer, byteOffset, byteLength)
  const at = index * PAGE_RECORD_BYTES
  const state = view.getUint8(at + 8)
  if (state !== HOLE && state !== DATA) return null
  const stamp = view.getUint32(at, true)
  return { witness, stamp, checksum: view.getUint32(at + 4, true), isHole: state === HOLE }
}

function isSame(a: Vote, b: Vote): boolean {
  return a.stamp === b.stamp && a.checksum === b.checksum && a.isHole === b.isHole
}

function supportOf(vote: Vote, votes: readonly Vote[]): number {
  return votes.filter((other) => isSame(other, vote)).length
}

/** The best one first. */
function compareVotes(a: Vote, b: Vote, votes: readonly Vote[]): number {
  return (
    b.stamp - a.stamp ||
    supportOf(b, votes) - supportOf(a, votes) ||
    Number(a.witness.isSuspect) - Number(b.witness.isSuspect) ||
    a.witness.since - b.witness.since ||
    a.witness.server - b.witness.server
  )
}
