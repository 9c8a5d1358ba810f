/** Pauses as a distribution: by kind of fault, by client, as a histogram. */
import type { WindowGaps } from './pulse.ts'

export interface Struck {
  readonly kind: string
  readonly target: 'master' | 'follower'
  readonly what: string
  readonly gaps: WindowGaps
}

export interface Distribution {
  readonly count: number
  readonly p50Ms: number
  readonly p90Ms: number
  readonly p99Ms: number
  readonly maxMs: number
}

const HISTOGRAM_STEP_MS = 250
const BAR_LENGTH_MAX = 60

/** Nearest rank. */
export function distribution(values: readonly number[]): Distribution {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (part: number): number => Math.round(sorted[Math.ceil(part * sorted.length) - 1] ?? 0)
  return { count: sorted.length, p50Ms: at(0.5), p90Ms: at(0.9), p99Ms: at(0.99), maxMs: at(1) }
}

/** Of the client that waited longest. */
export function longestGap({ gaps }: Struck): number {
  return Math.max(0, ...gaps.values())
}

export interface Figures {
  /** Of the client that waited longest, fault by fault; those of the master only. */
  readonly all: Distribution
  readonly byKind: Readonly<Record<string, Distribution>>
  readonly followers: Distribution
  /** Of each client, fault by fault; those of the master only. */
  readonly byClient: Readonly<Record<string, Distribution>>
  readonly histogram: readonly { readonly belowMs: number; readonly count: number }[]
}

export function figuresOf(struck: readonly Struck[]): Figures {
  const atMaster = struck.filter(({ target }) => target === 'master')
  const kinds = [...new Set(atMaster.map(({ kind }) => kind))].toSorted()
  const clients = [...new Set(atMaster.flatMap(({ gaps }) => [...gaps.keys()]))].toSorted()
  const longest = atMaster.map(longestGap)
  return {
    all: distribution(longest),
    byKind: Object.fromEntries(
      kinds.map((kind) => [
        kind,
        distribution(atMaster.filter((fault) => fault.kind === kind).map(longestGap)),
      ]),
    ),
    followers: distribution(struck.filter(({ target }) => target === 'follower').map(longestGap)),
    byClient: Object.fromEntries(
      clients.map((client) => [client, distribution(atMaster.flatMap(({ gaps }) => gaps.get(client) ?? []))]),
    ),
    histogram: histogramOf(longest),
  }
}

function histogramOf(values: readonly number[]): { belowMs: number; count: number }[] {
  const bucketOf = (value: number): number => Math.floor(value / HISTOGRAM_STEP_MS)
  const last = bucketOf(Math.max(0, ...values))
  return Array.from({ length: last + 1 }, (_, bucket) => ({
    belowMs: (bucket + 1) * HISTOGRAM_STEP_MS,
    count: values.filter((value) => bucketOf(value) === bucket).length,
  }))
}

export function table(figures: Figures): string {
  const line = (name: string, { count, p50Ms, p90Ms, p99Ms, maxMs }: Distribution): string =>
    `| ${name} | ${count} | ${p50Ms} | ${p90Ms} | ${p99Ms} | ${maxMs} |`
  const rows = [
    ...Object.entries(figures.byKind).map(([kind, values]) => line(kind, values)),
    line('**all of the master**', figures.all),
    line('of a follower', figures.followers),
    ...Object.entries(figures.byClient).map(([client, values]) => line(`client ${client}`, values)),
  ]
  const bars = figures.histogram.map(({ belowMs, count }) => {
    const from = String(belowMs - HISTOGRAM_STEP_MS).padStart(5)
    return `${from} to ${String(belowMs).padStart(5)} ms ${String(count).padStart(4)} ${'#'.repeat(Math.min(count, BAR_LENGTH_MAX))}`
  })
  const head = ['| fault | count | p50 ms | p90 ms | p99 ms | max ms |', '|---|---|---|---|---|---|']
  return [...head, ...rows, '', ...bars, ''].join('\n')
}
