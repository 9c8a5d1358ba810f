/**
 * The manifest of a plugin: the `cairn` block of its package.json. Data only: reading it runs no code of the
 * plugin, so an incompatible plugin is refused before it is imported.
 */
import { Type } from '@sinclair/typebox'
import type { Static } from '@sinclair/typebox'
import { TypeCompiler } from '@sinclair/typebox/compiler'
import semver from 'semver'
import { kernelError, messageOf } from './errors.ts'
import type { PluginSource } from './source.ts'

export const ROLES = ['mds', 'cs', 'client', 'node', 'cli'] as const
export type Role = (typeof ROLES)[number]

/** Names are folder names, config keys and parts of messages. */
export const PLUGIN_NAME = /^[a-z0-9][a-z0-9-]{0,62}$/
/** Keys beside the plugins' own sections under `plugins` in the config. */
const RESERVED_NAMES = new Set(['enabled'])
const LIST_LENGTH_MAX = 64
const TEXT_LENGTH_MAX = 500

const Names = Type.Array(Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9._-]*$', maxLength: 64 }), {
  maxItems: LIST_LENGTH_MAX,
})

const ManifestSchema = Type.Object(
  {
    engines: Type.Object({ core: Type.String({ minLength: 1 }) }),
    roles: Type.Array(Type.Union(ROLES.map((role) => Type.Literal(role))), {
      minItems: 1,
      uniqueItems: true,
    }),
    commands: Type.Optional(
      Type.Record(
        Type.String({ pattern: '^[a-z][a-z0-9.-]*$' }),
        Type.String({ maxLength: TEXT_LENGTH_MAX }),
      ),
    ),
    taps: Type.Optional(Names),
    requires: Type.Optional(Names),
    provides: Type.Optional(Names),
    after: Type.Optional(Names),
    onFailure: Type.Optional(Type.Union([Type.Literal('degrade'), Type.Literal('abort-boot')])),
    isolation: Type.Optional(Type.Union([Type.Literal('in-process'), Type.Literal('process')])),
    privileges: Type.Optional(
      Type.Array(Type.String({ maxLength: TEXT_LENGTH_MAX }), { maxItems: LIST_LENGTH_MAX }),
    ),
  },
  { additionalProperties: false },
)

const manifestCheck = TypeCompiler.Compile(ManifestSchema)
type ManifestBlock = Static<typeof ManifestSchema>

/** What each place of the block must hold, for messages. */
const EXPECTED: Readonly<Record<string, string>> = {
  engines: 'an object with the key "core"',
  'engines/core': 'a version range such as "^0.1.0"',
  roles: `a list with at least one of ${ROLES.join(', ')}`,
  commands: 'an object from command name to one-line description',
  taps: 'a list of hook names',
  requires: 'a list of service names',
  provides: 'a list of service names',
  after: 'a list of plugin or service names',
  onFailure: '"degrade" or "abort-boot"',
  isolation: '"in-process"',
  privileges: 'a list of sentences',
}

export interface Manifest {
  /** The folder's name. */
  readonly name: string
  readonly version: string
  readonly description: string
  /** Path of the entry module inside the folder, as package.json gives it. */
  readonly entry: string | undefined
  readonly coreRange: string
  readonly roles: readonly Role[]
  /** Name to one-line description; only for the role `cli`. */
  readonly commands: Readonly<Record<string, string>>
  /** Only for the role `cli`: hooks for which the program imports the plugin, whatever its command is. */
  readonly taps: readonly string[]
  readonly requires: readonly string[]
  readonly provides: readonly string[]
  readonly after: readonly string[]
  readonly onFailure: 'degrade' | 'abort-boot'
  readonly isolation: 'in-process'
  readonly privileges: readonly string[]
}

/** Reads and checks the manifest in `directory`. Throws PLUGIN_MANIFEST or PLUGIN_INCOMPATIBLE. */
export function readManifest(
  source: PluginSource,
  directory: string,
  name: string,
  coreVersion: string,
): Manifest {
  const file = source.resolvePath(directory, 'package.json')
  const fail = (what: string): never => {
    throw kernelError('PLUGIN_MANIFEST', `plugin ${name}: ${file}: ${what}`)
  }
  if (!PLUGIN_NAME.test(name) || RESERVED_NAMES.has(name))
    fail(`"${name}" cannot be the name of a plugin; expected a folder name of a-z, 0-9 and "-"`)
  const text = source.readText(file)
  if (text === undefined) return fail('there is no such file')
  const json = parseJson(text, fail)
  const block = json['cairn']
  if (!isObject(block)) return fail('expected an object under the key "cairn"')
  checkEngine(block, name, coreVersion, fail) // before the shape: a newer manifest may have keys unknown here
  if (!manifestCheck.Check(block)) return fail(describeFirstError(block))
  if (block.isolation === 'process')
    throw kernelError(
      'PLUGIN_INCOMPATIBLE',
      `plugin ${name}: ${file}: isolation "process" is not available yet`,
      {
        next: 'Set "isolation" to "in-process", or wait for a core that runs plugins in processes of their own.',
      },
    )
  if (
    block.roles.includes('cli') &&
    Object.keys(block.commands ?? {}).length + (block.taps ?? []).length === 0
  )
    fail(
      'cairn.commands: expected at least one command (or hook in cairn.taps), because cairn.roles has "cli"',
    )
  return manifestOf(name, json, block)
}

/** Must the process not run without this plugin? Lenient, for manifests that `readManifest` refuses. */
export function wantsAbortBoot(source: PluginSource, directory: string): boolean {
  try {
    const json: unknown = JSON.parse(source.readText(source.resolvePath(directory, 'package.json')) ?? '{}')
    const block = isObject(json) ? json['cairn'] : undefined
    return isObject(block) && block['onFailure'] === 'abort-boot'
  } catch {
    return false // unreadable: the caller reports why, and without a manifest `degrade` is the rule
  }
}

function manifestOf(name: string, json: Readonly<Record<string, unknown>>, block: ManifestBlock): Manifest {
  return Object.freeze({
    name,
    version: typeof json['version'] === 'string' ? json['version'] : '0.0.0',
    description: typeof json['description'] === 'string' ? json['description'] : '',
    entry: entryOf(json),
    coreRange: block.engines.core,
    roles: block.roles,
    commands: block.commands ?? {},
    taps: block.taps ?? [],
    requires: block.requires ?? [],
    provides: block.provides ?? [],
    after: block.after ?? [],
    onFailure: block.onFailure ?? 'degrade',
    isolation: 'in-process',
    privileges: block.privileges ?? [],
  })
}

function parseJson(text: string, fail: (what: string) => never): Readonly<Record<string, unknown>> {
  try {
    const json: unknown = JSON.parse(text)
    return isObject(json) ? json : fail('expected a JSON object')
  } catch (error) {
    if (error instanceof SyntaxError) return fail(`not valid JSON: ${messageOf(error)}`)
    throw error
  }
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** The range must be valid, must not reach beyond one major, and must hold the version that runs. */
function checkEngine(
  block: Readonly<Record<string, unknown>>,
  name: string,
  coreVersion: string,
  fail: (what: string) => never,
): void {
  const engines = block['engines']
  const range = isObject(engines) ? engines['core'] : undefined
  if (typeof range !== 'string') return fail(`cairn.engines.core: expected ${EXPECTED['engines/core']}`)
  if (semver.validRange(range) === null)
    fail(`cairn.engines.core: expected ${EXPECTED['engines/core']}, found ${JSON.stringify(range)}`)
  if (!namesMajor(range))
    fail(
      `cairn.engines.core: ${JSON.stringify(range)} does not name one major version; expected a range such as ` +
        `"^${coreVersion}", because the next major may break the plugin`,
    )
  if (semver.satisfies(coreVersion, range, { includePrerelease: true })) return
  throw kernelError(
    'PLUGIN_INCOMPATIBLE',
    `plugin ${name} is made for core ${range}, and this is core ${coreVersion}; nothing of it was loaded`,
  )
}

function namesMajor(range: string): boolean {
  return range.split('||').every((part) => {
    const lowest = semver.minVersion(part)
    return lowest !== null && !semver.intersects(part, `>=${lowest.major + 1}.0.0`)
  })
}

function describeFirstError(block: unknown): string {
  const first = manifestCheck.Errors(block).First()
  const path = (first?.path ?? '').slice(1)
  const [top = ''] = path.split('/')
  const expected = EXPECTED[path] ?? EXPECTED[top]
  const where = ['cairn', ...path.split('/')].filter((part) => part !== '').join('.')
  if (expected === undefined)
    return `${where}: unknown key; known are ${Object.keys(ManifestSchema.properties).join(', ')}`
  return `${where}: expected ${expected}, found ${JSON.stringify(first?.value)}`
}

/** `exports` (".", conditions import, node, default) or `main`. */
function entryOf(json: Readonly<Record<string, unknown>>): string | undefined {
  const exported = json['exports']
  const root = isObject(exported) && '.' in exported ? exported['.'] : exported
  const target = isObject(root) ? (root['node'] ?? root['import'] ?? root['default']) : root
  if (typeof target === 'string') return target
  return typeof json['main'] === 'string' ? json['main'] : undefined
}
