/** What a run of the torture says in the end: faults by kind, stalls and what explains them, and what was found. */
import type { TortureResult } from './torture.ts'
import type { Stall } from './stalls.ts'
import type { StruckFault } from './nemesis.ts'

export interface KindFigures {
  readonly kind: string
  readonly count: number
  /** That lasted while others did. */
  readonly overlapping: number
  readonly recoverySecondsMax: number
}

export interface Report {
  readonly faults: number
  readonly overlapping: number
  readonly kinds: readonly KindFigures[]
  readonly stalls: readonly { readonly client: string; readonly seconds: number; readonly beside: string }[]
  readonly counts: Readonly<Record<string, number>>
  readonly problems: readonly string[]
}

export function reportOf({ struck, stalls, counts, problems }: TortureResult): Report {
  const ended = struck.filter(({ endedMs }) => Number.isFinite(endedMs))
  const overlaps = new Set(
    ended.filter((one) => ended.some((other) => other !== one && isAtOnce(one, other))),
  )
  const names = [...new Set(ended.map(({ kind }) => kind))].toSorted()
  return {
    faults: ended.length,
    overlapping: overlaps.size,
    kinds: names.map((kind) => {
      const those = ended.filter((fault) => fault.kind === kind)
      return {
        kind,
        count: those.length,
        overlapping: those.filter((fault) => overlaps.has(fault)).length,
        recoverySecondsMax: seconds(
          Math.max(...those.map(({ endedMs, recoveredMs }) => recoveredMs - endedMs)),
        ),
      }
    }),
    stalls: stalls.map((stall) => ({
      client: stall.client,
      seconds: seconds(stall.toMs - stall.fromMs),
      beside: explanation(stall, struck),
    })),
    counts,
    problems,
  }
}

function isAtOnce(one: StruckFault, other: StruckFault): boolean {
  return one.startedMs < other.endedMs && other.startedMs < one.endedMs
}

/** The faults that lasted, or from which the cluster had not recovered, at some time of the stall. */
function explanation({ fromMs, toMs }: Stall, struck: readonly StruckFault[]): string {
  return struck
    .filter(({ startedMs, recoveredMs }) => startedMs < toMs && recoveredMs > fromMs)
    .map(({ kind, host, what }) => `${kind} of ${host} (${what})`)
    .join('; ')
}

function seconds(milliseconds: number): number {
  return Math.round(milliseconds / 100) / 10
}

export function printable(report: Report): string {
  const { faults, overlapping, kinds, stalls, counts, problems } = report
  const rows = kinds.map(
    ({ kind, count, overlapping: beside, recoverySecondsMax }) =>
      `| ${kind} | ${count} | ${beside} | ${recoverySecondsMax} |`,
  )
  return [
    '',
    '| fault | count | overlapping others | longest recovery s |',
    '|---|---|---|---|',
    ...rows,
    `| **all** | ${faults} | ${overlapping} | |`,
    '',
    ...stalls.map(
      ({ client, seconds: length, beside }) => `longest stall of ${client}: ${length} s, beside ${beside}`,
    ),
    Object.entries(counts)
      .map(([name, value]) => `${name} ${value}`)
      .join(', '),
    problems.length === 0 ? 'no byte lost or wrong, no promise broken' : `BROKEN:\n${problems.join('\n')}`,
    '',
  ].join('\n')
}
