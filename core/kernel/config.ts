/**
 * Configuration: the schema of the core and, under `plugins.NAME`, of every plugin that is loaded, merged and built
 * once by convict, validated strictly. The program gets frozen, typed copies. Every problem names file, key, plugin,
 * what was expected, and the next step; all problems are told at once. Values of sensitive keys are never shown.
 */
import convict from 'convict'
import { CairnError } from '../base/errors.ts'
import { isKnownFormat, isLeaf, parseLeaf, FORMAT_NAMES } from './config-format.ts'
import type { ConfigLeaf, ConfigOf, ConfigSchema } from './config-format.ts'
import { kernelError, messageOf } from './errors.ts'

const SCHEMA_DEPTH_MAX = 8
const SHOWN_LENGTH_MAX = 80
/** One convict format for all keys: it hands the value to the check that its schema node carries. */
const CHECKED = 'cairn-checked'

export interface ConfigProblem {
  readonly key: string
  readonly plugin: string | undefined
  readonly message: string
  readonly next: string
}

/** All that is wrong with a configuration file. `message` is complete; `problems` is for programs. */
export class ConfigError extends CairnError {
  readonly file: string
  readonly problems: readonly ConfigProblem[]

  constructor(file: string, problems: readonly ConfigProblem[]) {
    const lines = problems.map(({ key, plugin, message, next }) => {
      const where = plugin === undefined ? key : `${key} (plugin ${plugin})`
      return `  ${where}: ${message}. ${next}${next.endsWith('?') ? '' : '.'}`
    })
    super('CONFIG_INVALID', `${file} is not valid:\n${lines.join('\n')}`, {
      next: 'Correct the keys named above and start again.',
    })
    this.file = file
    this.problems = problems
  }
}

export interface PluginSection {
  readonly plugin: string
  readonly schema: ConfigSchema
}

export interface ConfigRequest<Core extends ConfigSchema> {
  /** For messages. */
  readonly file: string
  /** Parsed text of the file; see `parseConfigText`. */
  readonly raw: RawConfig
  readonly core: Core
  readonly sections: readonly PluginSection[]
  /** Plugins whose section is left alone: known, but not loaded in this process. */
  readonly ignored: readonly string[]
  readonly enabledByDefault: readonly string[]
  readonly environment: Readonly<Record<string, string | undefined>>
}

export type RawConfig = Readonly<Record<string, unknown>>

export interface Configuration<Core extends ConfigSchema> {
  readonly core: ConfigOf<Core>
  readonly plugins: ReadonlyMap<string, unknown>
  /** JSON text of everything, secrets masked. */
  readonly masked: string
}

/** Text to object. An absent file is an empty one. Throws CONFIG_READ. */
export function parseConfigText(file: string, text: string | undefined): RawConfig {
  if (text === undefined) return {}
  try {
    const raw: unknown = JSON.parse(text)
    if (isObject(raw)) return raw
  } catch (error) {
    throw kernelError('CONFIG_READ', `${file} is not valid JSON: ${messageOf(error)}`, { cause: error })
  }
  throw kernelError('CONFIG_READ', `${file} must hold a JSON object`)
}

/** `plugins.enabled`, needed before the schemas of the plugins are known. */
export function enabledPlugins(
  file: string,
  raw: RawConfig,
  byDefault: readonly string[],
): readonly string[] {
  const section = raw['plugins']
  const value = isObject(section) ? (section['enabled'] ?? byDefault) : byDefault
  if (Array.isArray(value) && value.every((item) => typeof item === 'string' && item !== '')) return value
  throw new ConfigError(file, [
    {
      key: 'plugins.enabled',
      plugin: undefined,
      message: `expected a list of plugin names, found ${shown(value, false)}`,
      next: 'Write for example ["fuse", "./my-plugin"]',
    },
  ])
}

/** Builds and validates. Throws ConfigError with every problem. */
export function buildConfig<Core extends ConfigSchema>(request: ConfigRequest<Core>): Configuration<Core> {
  const builder = new ConfigBuilder(request.file, request.sections)
  const plugins: Record<string, unknown> = {
    enabled: {
      doc: 'Plugins to load: a name of ours, an npm package, or a path',
      format: 'string[]',
      default: request.enabledByDefault,
    } satisfies ConfigLeaf,
  }
  for (const { plugin, schema } of request.sections) plugins[plugin] = schema
  const schema = { ...request.core, plugins } as unknown as ConfigSchema
  const boxed = builder.boxedSchema(schema, '', 0)
  const accepted = builder.boxedValues(schema, request.raw, '', new Set(request.ignored))
  const config = convict<Record<string, unknown>>(boxed as never, {
    env: { ...request.environment },
    args: [],
  })
  config.load(accepted)
  try {
    config.validate({ allowed: 'strict' })
  } catch (error) {
    // The checks have collected what they found; anything else is convict's own word.
    if (builder.problems.length === 0)
      builder.add('(file)', messageOf(error), 'Compare with docs/configuration')
  }
  if (builder.problems.length > 0) throw new ConfigError(request.file, builder.problems)
  const values = builder.values(schema, config.getProperties()) as Record<string, unknown>
  const pluginValues = values['plugins'] as Record<string, unknown>
  return {
    core: values as ConfigOf<Core>,
    plugins: new Map(
      request.sections.map(({ plugin }) => [plugin, pluginValues[plugin] ?? Object.freeze({})]),
    ),
    masked: config.toString(),
  }
}

/** Checks a plugin's schema itself. Returns what is wrong with it, or undefined. */
export function schemaProblem(schema: ConfigSchema, path = '', depth = 0): string | undefined {
  if (depth > SCHEMA_DEPTH_MAX) return `${path}: sections are nested deeper than ${SCHEMA_DEPTH_MAX}`
  for (const [key, node] of Object.entries(schema)) {
    const here = path === '' ? key : `${path}.${key}`
    if (!/^[A-Za-z][A-Za-z0-9_-]*$/.test(key)) return `${here}: a key is made of letters, digits, "_" and "-"`
    if (!isObject(node)) return `${here}: expected { doc, format, default } or a section`
    if (!isLeaf(node) && !('format' in node)) {
      const inner = schemaProblem(node as ConfigSchema, here, depth + 1)
      if (inner !== undefined) return inner
      continue
    }
    const leaf = node as unknown as ConfigLeaf
    if (!isLeaf(leaf) || !isKnownFormat(leaf.format))
      return `${here}: unknown format ${JSON.stringify(leaf.format)}; known are ${FORMAT_NAMES.join(', ')}, or a list of choices`
    if (!('default' in leaf)) return `${here}: has no default; write "default: null" when the key must be set`
    if (leaf.default === null) continue
    const parsed = parseLeaf(leaf, leaf.default)
    if ('misfit' in parsed) return `${here}: its own default is not ${parsed.misfit.expected}`
  }
  return undefined
}

class ConfigBuilder {
  readonly problems: ConfigProblem[] = []
  readonly #file: string
  readonly #plugins: ReadonlySet<string>

  constructor(file: string, sections: readonly PluginSection[]) {
    this.#file = file
    this.#plugins = new Set(sections.map(({ plugin }) => plugin))
  }

  add(key: string, message: string, next: string): void {
    const [top, plugin] = key.split('.')
    const isPlugin = top === 'plugins' && plugin !== undefined && this.#plugins.has(plugin)
    this.problems.push({ key, plugin: isPlugin ? plugin : undefined, message, next })
  }

  /**
   * The schema for convict. Every value travels boxed in a list of one, because convict coerces bare strings by the
   * type of the default and descends into objects; a list it leaves alone.
   */
  boxedSchema(schema: ConfigSchema, path: string, depth: number): Record<string, unknown> {
    const boxed: Record<string, unknown> = {}
    for (const [key, node] of Object.entries(schema)) {
      const here = join(path, key)
      if (!isLeaf(node)) {
        const inner = this.boxedSchema(node, here, depth + 1)
        if (Object.keys(inner).length > 0) boxed[key] = inner // convict takes an empty section for a value
        continue
      }
      boxed[key] = {
        doc: node.doc,
        format: CHECKED,
        default: [node.default],
        ...(node.sensitive === true ? { sensitive: true } : {}),
        ...(node.env === undefined ? {} : { env: node.env }),
        check: (value: unknown) => this.#check(here, node, unbox(value)),
      }
    }
    return boxed
  }

  /** What the file says, boxed; what has no place in the schema becomes a problem and is left out. */
  boxedValues(schema: ConfigSchema, raw: RawConfig, path: string, ignored: ReadonlySet<string>): object {
    const accepted: Record<string, unknown> = {}
    for (const [key, value] of Object.entries(raw)) {
      const here = join(path, key)
      if (path === 'plugins' && ignored.has(key)) continue
      const node = Object.hasOwn(schema, key) ? schema[key] : undefined
      if (node === undefined) this.#addUnknown(here, key, schema)
      else if (isLeaf(node)) accepted[key] = [value]
      else if (isObject(value)) {
        const inner = this.boxedValues(node, value, here, ignored)
        if (Object.keys(inner).length > 0) accepted[key] = inner
      } else this.add(here, `expected a section, found ${shown(value, false)}`, `Write ${key}: { … }`)
    }
    return accepted
  }

  /** Frozen copy with the parsed values. */
  values(schema: ConfigSchema, boxed: unknown): unknown {
    const values: Record<string, unknown> = {}
    for (const [key, node] of Object.entries(schema)) {
      const value = isObject(boxed) ? boxed[key] : undefined
      if (!isLeaf(node)) values[key] = this.values(node, value)
      else {
        const parsed = parseLeaf(node, unbox(value))
        values[key] = deepFreeze('value' in parsed ? structuredClone(parsed.value) : undefined)
      }
    }
    return Object.freeze(values)
  }

  #check(key: string, leaf: ConfigLeaf, value: unknown): void {
    const parsed = parseLeaf(leaf, value)
    if (!('misfit' in parsed)) return
    const { expected, example } = parsed.misfit
    if (value === null && leaf.default === null) {
      this.add(key, `must be set: ${expected} (${leaf.doc})`, `Write for example ${example}`)
      return
    }
    this.add(
      key,
      `expected ${expected}, found ${shown(value, leaf.sensitive === true)}`,
      `Write for example ${example}`,
    )
  }

  #addUnknown(here: string, key: string, schema: ConfigSchema): void {
    const known = Object.keys(schema)
    if (here === `plugins.${key}`) {
      this.add(
        here,
        `there is no enabled plugin "${key}"`,
        `Add ${JSON.stringify(key)} to plugins.enabled in ${this.#file}, or remove this section`,
      )
      return
    }
    const close = known.find((name) => isClose(name, key))
    const hint = close === undefined ? 'Remove it' : `Did you mean "${close}"?`
    this.add(here, `unknown key; known are ${known.length === 0 ? '(none)' : known.join(', ')}`, hint)
  }
}

/** A value from file or default is boxed; one from the environment is a bare string. */
function unbox(value: unknown): unknown {
  return Array.isArray(value) ? value[0] : value
}

function shown(value: unknown, isSecret: boolean): string {
  if (isSecret) return '(a secret, not shown)'
  const json = JSON.stringify(value) ?? 'nothing'
  return json.length > SHOWN_LENGTH_MAX ? `${json.slice(0, SHOWN_LENGTH_MAX)}…` : json
}

function join(path: string, key: string): string {
  return path === '' ? key : `${path}.${key}`
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function deepFreeze(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value
  for (const inner of Object.values(value)) deepFreeze(inner)
  return Object.freeze(value)
}

/** One letter added, missing or changed, or two swapped: enough for typing errors. */
function isClose(a: string, b: string): boolean {
  if (Math.abs(a.length - b.length) > 1 || a === b) return false
  let start = 0
  while (start < a.length && a[start] === b[start]) start++
  let end = 0
  while (end < Math.min(a.length, b.length) - start && a.at(-1 - end) === b.at(-1 - end)) end++
  return Math.max(a.length, b.length) - start - end <= 2
}

convict.addFormat({
  name: CHECKED,
  validate: (value: unknown, node: { [key: string]: unknown }) => {
    if (typeof node['check'] === 'function') node['check'](value)
  },
  coerce: (value: unknown) => value,
})
