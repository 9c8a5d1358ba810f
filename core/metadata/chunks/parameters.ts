/**
 * The parameters of a cluster (`cairn set-config KEY=VALUE`): replicated, typed, bounded. Only values that
 * differ from the default are stored. Durations are milliseconds inside, `5s`, `5min` or plain seconds
 * outside, as the guide writes them; sizes are bytes, also written `64KiB`, `16MiB`, `1GiB`.
 */

export type ParameterKind = 'duration' | 'count' | 'percent' | 'bytes'

export interface Parameter {
  readonly kind: ParameterKind
  readonly defaultValue: number
  readonly minimum: number
  readonly maximum: number
  readonly meaning: string
  /** Feature level from which on it exists (state/feature-levels.ts); absent: always. */
  readonly level?: number
}

const second = 1000
const minute = 60 * second
const hour = 60 * minute
const mebibyte = 1024 * 1024

export const parameters = {
  'mds.wd.inactive_tout': {
    kind: 'duration',
    // Writers stand still for that long when a chunk server falls silent. With 3 s one that only finds its way to a
    // master that had stood still is sometimes given up (test/integration/no-quorum.test.ts).
    defaultValue: 5 * second,
    minimum: 500,
    maximum: hour,
    meaning: 'a chunk server without heartbeat for this long is inactive',
  },
  'mds.wd.offline_tout': {
    kind: 'duration',
    defaultValue: 5 * minute,
    minimum: 500,
    maximum: 7 * 24 * hour,
    meaning:
      'a chunk server that is inactive for this long is offline: its replicas are re-created elsewhere',
  },
  'mds.wd.max_offline_cs': {
    kind: 'count',
    defaultValue: 2,
    minimum: 0,
    maximum: 10_000,
    meaning: 'with more chunk servers offline the cluster has failed and no new replicas are made; 0: never',
  },
  'mds.wd.max_offline_cs_hosts': {
    kind: 'count',
    defaultValue: 1,
    minimum: 0,
    maximum: 10_000,
    meaning: 'the cluster has failed only when the offline chunk servers are on more hosts than this',
  },
  'mds.session_tout': {
    kind: 'duration',
    defaultValue: 5 * second,
    minimum: second,
    maximum: hour,
    meaning: 'a client that is not confirmed for this long holds its I/O; then its leases can be taken over',
  },
  'mds.lease.recall_tout': {
    kind: 'duration',
    defaultValue: 30 * second,
    minimum: second,
    maximum: hour,
    meaning: 'a holder that does not give a lease back in this time is busy (rule L9)',
  },
  'mds.alloc.fill_margin': {
    kind: 'percent',
    defaultValue: 5,
    minimum: 0,
    maximum: 50,
    meaning: 'per cent of each chunk server that new chunks leave free',
  },
  'mds.replication.max_per_cs': {
    kind: 'count',
    defaultValue: 4,
    minimum: 1,
    maximum: 256,
    meaning: 'replicas that one chunk server re-creates at once',
  },
  'mds.replication.max': {
    kind: 'count',
    defaultValue: 64,
    minimum: 1,
    maximum: 10_000,
    meaning: 'replicas that are re-created at once in the whole cluster',
  },
  'mds.gc.grace': {
    kind: 'duration',
    defaultValue: 5 * second,
    minimum: 0,
    maximum: 7 * 24 * hour,
    meaning: 'time between the decision to delete a replica and its deletion',
  },
  'mds.gc.stale_grace': {
    kind: 'duration',
    defaultValue: 60 * second,
    minimum: 0,
    maximum: 7 * 24 * hour,
    meaning: 'a stale replica is kept while its chunk has been complete for less than this (rule G2)',
  },
  'mds.wd.verify_chunks': {
    kind: 'count',
    defaultValue: 2,
    minimum: 0,
    maximum: 100_000,
    meaning: 'chunks that each chunk server verifies a minute, at least (scrubbing)',
    level: 3,
  },
  'cs.scrub.period_days': {
    kind: 'count',
    defaultValue: 14,
    minimum: 1,
    maximum: 3650,
    meaning: 'every replica is verified and compared once in so many days, whatever that takes',
    level: 3,
  },
  'cs.bad_chunks_max': {
    kind: 'count',
    defaultValue: 16,
    minimum: 0,
    maximum: 1_000_000,
    meaning:
      'a disk on which pages of more chunks were bad since its server started is emptied (rule R1); 0: never',
    level: 3,
  },
  'mds.kv.bytes': {
    kind: 'bytes',
    defaultValue: 64 * mebibyte,
    minimum: mebibyte,
    maximum: 1024 * mebibyte,
    meaning: 'keys and values of the key-value store together, with 64 bytes for each key',
  },
  'mds.kv.namespace_bytes': {
    kind: 'bytes',
    defaultValue: 16 * mebibyte,
    minimum: mebibyte,
    maximum: 1024 * mebibyte,
    meaning: 'the same for each namespace of the key-value store',
  },
  'mds.auth.key_overlap': {
    kind: 'duration',
    defaultValue: 24 * hour,
    minimum: 0,
    maximum: 30 * 24 * hour,
    meaning: 'the old cluster key is accepted for this long after `passwd --rotate-key`',
  },
} as const satisfies Record<string, Parameter>

export type ParameterName = keyof typeof parameters

/** Under that feature level: members that do not know it yet would refuse it. */
export function isParameter(key: string, level: number): key is ParameterName {
  return Object.hasOwn(parameters, key) && levelOfParameter(key) <= level
}

/** From which on it can be set; 0: always, or there is none of that name. */
export function levelOfParameter(key: string): number {
  const known: Readonly<Record<string, Parameter>> = parameters
  return Object.hasOwn(known, key) ? (known[key]?.level ?? 0) : 0
}

/** The value inside, or why it is not one. */
export function parseParameter(
  key: string,
  text: string,
  level: number,
): { value: number } | { error: string } {
  if (!isParameter(key, level)) return { error: `no parameter is called '${key}'` }
  const parameter: Parameter = parameters[key]
  const value = parseNumber(parameter.kind, text.trim())
  if (value === null) return { error: `${key}: '${text}' is no ${parameter.kind}` }
  if (value < parameter.minimum || value > parameter.maximum) {
    const range = `${formatParameter(key, parameter.minimum)} to ${formatParameter(key, parameter.maximum)}`
    return { error: `${key} must be within ${range}` }
  }
  return { value }
}

const durationUnits: Readonly<Record<string, number>> = {
  '': second,
  ms: 1,
  s: second,
  sec: second,
  m: minute,
  min: minute,
  h: hour,
  d: 24 * hour,
}

const byteUnits: Readonly<Record<string, number>> = {
  '': 1,
  KiB: 1024,
  MiB: mebibyte,
  GiB: 1024 * mebibyte,
}

function parseNumber(kind: ParameterKind, text: string): number | null {
  const match = /^(\d{1,12}(?:\.\d{1,3})?)\s*([A-Za-z%]*)$/.exec(text)
  if (match === null) return null
  const amount = Number(match[1])
  const unit = match[2] ?? ''
  if (kind === 'duration') {
    const factor = Object.hasOwn(durationUnits, unit) ? durationUnits[unit] : undefined
    return factor === undefined ? null : Math.round(amount * factor)
  }
  if (kind === 'bytes') {
    const factor = Object.hasOwn(byteUnits, unit) ? byteUnits[unit] : undefined
    return factor === undefined ? null : Math.round(amount * factor)
  }
  if (kind === 'percent') return unit === '' || unit === '%' ? amount : null
  return unit === '' && Number.isSafeInteger(amount) ? amount : null
}

/** As `get-config` shows it. */
export function formatParameter(key: ParameterName, value: number): string {
  if (parameters[key].kind === 'bytes') {
    return value % mebibyte === 0 ? `${value / mebibyte}MiB` : String(value)
  }
  if (parameters[key].kind !== 'duration') return String(value)
  if (value % minute === 0 && value !== 0) return `${value / minute}min`
  return value % second === 0 ? `${value / second}s` : `${value}ms`
}

export interface StoredConfig {
  get(key: string): string | number | undefined
}

export function parameterOf(config: StoredConfig, key: ParameterName): number {
  const stored = config.get(key)
  return typeof stored === 'number' ? stored : parameters[key].defaultValue
}
