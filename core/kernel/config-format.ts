/**
 * Formats of configuration values: what a person may write, and what the program gets. Our own, because convict's
 * turn '12abc' into 12 and 'nope' into true. Numbers may also be written as strings of digits (environment).
 */

export interface HostPort {
  readonly host: string
  readonly port: number
}

/** What the program gets for each named format. */
export interface FormatTypes {
  string: string
  number: number
  boolean: boolean
  integer: number
  port: number
  /** Bytes, written as a number or "64 MiB", "1.5GB". */
  bytes: number
  /** Milliseconds, written as a number or "30s", "5 min", "1h". */
  duration: number
  'host:port': HostPort
  path: string
  'string[]': readonly string[]
  object: Readonly<Record<string, unknown>>
}

export type ConfigFormat = keyof FormatTypes

/** One key. `default: null` without `nullable` means that the key must be set. */
export interface ConfigLeaf {
  readonly doc: string
  readonly format: ConfigFormat | readonly (string | number)[]
  readonly default: unknown
  readonly nullable?: boolean
  /** Never shown, neither in messages nor in dumps. */
  readonly sensitive?: boolean
  /** Environment variable that wins over the file. */
  readonly env?: string
}

export interface ConfigSchema {
  readonly [key: string]: ConfigLeaf | ConfigSchema
}

type LeafValue<Leaf> = Leaf extends { readonly format: readonly (infer Choice)[] }
  ? Choice
  : Leaf extends { readonly format: infer Format extends ConfigFormat }
    ? FormatTypes[Format]
    : unknown

/** The values of a schema, as the program gets them. */
export type ConfigOf<Schema> = {
  readonly [Key in keyof Schema]: Schema[Key] extends { readonly format: unknown }
    ? LeafValue<Schema[Key]> | (Schema[Key] extends { readonly nullable: true } ? null : never)
    : ConfigOf<Schema[Key]>
}

/** A value that does not fit: what was expected, and an example that would. */
export interface Misfit {
  readonly expected: string
  readonly example: string
}

export type Parsed = { readonly value: unknown } | { readonly misfit: Misfit }

interface FormatRow extends Misfit {
  /** undefined: does not fit. */
  parse(raw: unknown): unknown
}

const BYTE_UNITS: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
}
const DURATION_UNITS_MS: Readonly<Record<string, number>> = {
  '': 1,
  ms: 1,
  s: 1000,
  m: 60_000,
  min: 60_000,
  h: 3_600_000,
  d: 86_400_000,
}

function quantity(raw: unknown, units: Readonly<Record<string, number>>): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(String(typeof raw === 'number' ? raw : text(raw)).trim())
  const unit = units[match?.[2]?.toLowerCase() ?? 'none']
  if (match === null || unit === undefined) return undefined
  const value = Math.round(Number(match[1]) * unit)
  return Number.isSafeInteger(value) ? value : undefined
}

function text(raw: unknown): string | undefined {
  return typeof raw === 'string' ? raw : undefined
}

function number(raw: unknown): number | undefined {
  if (typeof raw === 'number') return Number.isFinite(raw) ? raw : undefined
  return typeof raw === 'string' && /^-?\d+(\.\d+)?$/.test(raw) ? Number(raw) : undefined
}

function integer(raw: unknown): number | undefined {
  const value = number(raw)
  return value !== undefined && Number.isSafeInteger(value) ? value : undefined
}

function port(raw: unknown): number | undefined {
  const value = integer(raw)
  return value !== undefined && value >= 1 && value <= 65_535 ? value : undefined
}

function boolean(raw: unknown): boolean | undefined {
  if (typeof raw === 'boolean') return raw
  return raw === 'true' ? true : raw === 'false' ? false : undefined
}

function hostPort(raw: unknown): HostPort | undefined {
  const match = /^(?:\[([0-9a-f:.%a-z]+)\]|([^\s:[\]/]+)):(\d{1,5})$/i.exec(text(raw) ?? '')
  const number = port(match?.[3])
  const host = match?.[1] ?? match?.[2]
  return host === undefined || number === undefined ? undefined : Object.freeze({ host, port: number })
}

function strings(raw: unknown): readonly string[] | undefined {
  if (typeof raw === 'string') return raw === '' ? [] : raw.split(',').map((part) => part.trim())
  return Array.isArray(raw) && raw.every((item) => typeof item === 'string') ? raw : undefined
}

function object(raw: unknown): unknown {
  return typeof raw === 'object' && raw !== null && !Array.isArray(raw) ? raw : undefined
}

const FORMATS: Readonly<Record<ConfigFormat, FormatRow>> = {
  string: { expected: 'a string', example: '"text"', parse: text },
  number: { expected: 'a number', example: '0.5', parse: number },
  boolean: { expected: 'true or false', example: 'true', parse: boolean },
  integer: { expected: 'a whole number', example: '12', parse: integer },
  port: { expected: 'a TCP port from 1 to 65535', example: '3260', parse: port },
  bytes: { expected: 'a size in bytes', example: '"64 MiB"', parse: (raw) => quantity(raw, BYTE_UNITS) },
  duration: { expected: 'a duration', example: '"30 s"', parse: (raw) => quantity(raw, DURATION_UNITS_MS) },
  'host:port': {
    expected: 'a host and port',
    example: '"10.0.0.1:2510" or "[fd00::1]:2510"',
    parse: hostPort,
  },
  path: {
    expected: 'an absolute path',
    example: '"/var/lib/cairn"',
    parse: (raw) => (text(raw)?.startsWith('/') === true && !String(raw).includes('\0') ? raw : undefined),
  },
  'string[]': { expected: 'a list of strings', example: '["a", "b"]', parse: strings },
  object: { expected: 'an object', example: '{ }', parse: object },
}

export const FORMAT_NAMES = Object.keys(FORMATS) as readonly ConfigFormat[]

export function isLeaf(node: ConfigLeaf | ConfigSchema): node is ConfigLeaf {
  return 'format' in node && (typeof node.format === 'string' || Array.isArray(node.format))
}

export function isKnownFormat(format: ConfigLeaf['format']): boolean {
  return typeof format !== 'string' || Object.hasOwn(FORMATS, format)
}

/** The program's value for what a person wrote. */
export function parseLeaf(leaf: ConfigLeaf, raw: unknown): Parsed {
  if (raw === null && leaf.nullable === true) return { value: null }
  if (typeof leaf.format !== 'string') return parseChoice(leaf.format, raw)
  const row = FORMATS[leaf.format]
  const value = raw === null ? undefined : row.parse(raw)
  return value === undefined ? { misfit: { expected: row.expected, example: row.example } } : { value }
}

function parseChoice(choices: readonly (string | number)[], raw: unknown): Parsed {
  const value = choices.find(
    (choice) => choice === raw || (typeof choice === 'number' && choice === number(raw)),
  )
  if (value !== undefined) return { value }
  const shown = choices.map((choice) => JSON.stringify(choice))
  return { misfit: { expected: `one of ${shown.join(', ')}`, example: shown[0] ?? '' } }
}
