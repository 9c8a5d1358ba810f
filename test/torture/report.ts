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

export interface StallFigures {
  readonly client: string
  readonly seconds: number
  /** What lasted meanwhile, or what the cluster had not recovered from: the longest part of the stall first. */
  readonly beside: readonly string[]
}

export interface Report {
  readonly faults: number
  readonly overlapping: number
  readonly kinds: readonly KindFigures[]
  /** The longest of each client, the longest one first. */
  readonly stalls: readonly StallFigures[]
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
    stalls: stalls
      .map((stall) => ({
        client: stall.client,
        seconds: seconds(stall.toMs - stall.fromMs),
        beside: explanation(stall, struck),
      }))
      .toSorted((a, b) => b.seconds - a.seconds),
    counts,
    problems,
  }
}

function isAtOnce(one: StruckFault, other: StruckFault): boolean {
  return one.startedMs < other.endedMs && other.startedMs < one.endedMs
}

function explanation(stall: Stall, struck: readonly StruckFault[]): string[] {
  const sharedMs = ({ fromMs, toMs }: { fromMs: number; toMs: number }): number =>
    Math.max(0, Math.min(toMs, stall.toMs) - Math.max(fromMs, stall.fromMs))
  return struck
    .map((fault) => {
      const { startedMs, endedMs, recoveredMs } = fault
      const lastedMs = sharedMs({ fromMs: startedMs, toMs: endedMs })
      return { fault, lastedMs, recoveringMs: sharedMs({ fromMs: endedMs, toMs: recoveredMs }) }
    })
    .filter(({ lastedMs, recoveringMs }) => lastedMs + recoveringMs > 0)
    .toSorted((a, b) => b.lastedMs - a.lastedMs || b.recoveringMs - a.recoveringMs)
    .map(({ fault: { kind, host, what }, lastedMs, recoveringMs }) => {
      const own = host === stall.client ? ', its own' : ''
      const lasted = `${seconds(lastedMs)} s, then ${seconds(recoveringMs)} s of recovery`
      return `${kind} of ${host}${own} (${what}): ${lasted}`
    })
}

function seconds(milliseconds: number): number {
  return Math.round(milliseconds / 100) / 10
}

function percentOf(part: number, all: number): number {
  return all === 0 ? 0 : Math.round((part * 100) / all)
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
    `| **all** | ${faults} | ${overlapping} (${percentOf(overlapping, faults)} %) | |`,
    '',
    ...stalls.flatMap(({ client, seconds: length, beside }) => [
      `longest stall of ${client}: ${length} s, beside`,
      ...beside.map((line) => `  ${line}`),
    ]),
    Object.entries(counts)
      .map(([name, value]) => `${name} ${value}`)
      .join(', '),
    problems.length === 0 ? 'no byte lost or wrong, no promise broken' : `BROKEN:\n${problems.join('\n')}`,
    '',
  ].join('\n')
}
