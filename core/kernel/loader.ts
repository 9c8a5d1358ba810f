/**
 * Finds plugins and imports them. An entry of `plugins.enabled` is the name of a plugin of ours (a folder of the
 * plugins folder), an npm package, or a path. Finding reads package.json only; `importPlugin` runs the plugin's code.
 */
import { kernelError, messageOf } from './errors.ts'
import { readManifest } from './manifest.ts'
import type { Manifest } from './manifest.ts'
import type { PluginDefinition } from './plugin.ts'
import type { PluginSource } from './source.ts'

const PACKAGE_NAME = /^(@[a-z0-9~-][a-z0-9._~-]*\/)?[a-z0-9~-][a-z0-9._~-]*$/
/** Folders looked through upwards for node_modules: deeper trees than this do not exist. */
const PARENTS_MAX = 64
const ENTRY_CANDIDATES = ['index.ts', 'index.js', 'index.mjs']

export type PluginOrigin = 'built-in' | 'package' | 'path'

export interface LocatedPlugin {
  /** As written in `plugins.enabled`. */
  readonly entry: string
  readonly name: string
  readonly origin: PluginOrigin
  /** Real path of the folder. */
  readonly directory: string
}

export interface LoaderOptions {
  readonly source: PluginSource
  readonly coreVersion: string
  /** Folder with the plugins of ours. */
  readonly builtInDirectory: string
  /** Relative paths are seen from here; node_modules is searched from each of these upwards. */
  readonly baseDirectories: readonly string[]
}

export class Loader {
  readonly #options: LoaderOptions

  constructor(options: LoaderOptions) {
    this.#options = options
  }

  /** The name an entry would have: its last path segment. */
  static nameOf(entry: string): string {
    return entry.replace(/\/+$/, '').split('/').at(-1) ?? entry
  }

  /** Folder of an entry. Throws PLUGIN_NOT_FOUND. */
  locate(entry: string): LocatedPlugin {
    const { source, builtInDirectory, baseDirectories } = this.#options
    const name = Loader.nameOf(entry)
    const isPath = /^\.{0,2}\//.test(entry)
    if (isPath) {
      const path = source.resolvePath(baseDirectories[0] ?? '/', entry)
      const directory = source.realDirectory(path)
      if (directory !== undefined) return { entry, name: Loader.nameOf(path), origin: 'path', directory }
      throw kernelError('PLUGIN_NOT_FOUND', `plugin ${JSON.stringify(entry)}: there is no folder ${path}`)
    }
    if (!PACKAGE_NAME.test(entry))
      throw kernelError(
        'PLUGIN_NOT_FOUND',
        `plugin ${JSON.stringify(entry)}: expected the name of a plugin or package, or a path with "./" or "/" in front`,
      )
    const builtIn = source.realDirectory(source.resolvePath(builtInDirectory, entry))
    if (builtIn !== undefined) return { entry, name, origin: 'built-in', directory: builtIn }
    const found = baseDirectories
      .map((base) => this.#findPackage(base, entry))
      .find((path) => path !== undefined)
    if (found !== undefined) return { entry, name, origin: 'package', directory: found }
    throw kernelError(
      'PLUGIN_NOT_FOUND',
      `plugin ${JSON.stringify(entry)}: not a plugin of ours (${builtInDirectory}), nor an npm package in ` +
        `node_modules of ${baseDirectories.join(' or ')}`,
    )
  }

  /** Names of the plugins that come with Cairn, enabled or not. */
  builtInNames(): readonly string[] {
    return this.#options.source.listDirectories(this.#options.builtInDirectory)
  }

  /** Throws PLUGIN_MANIFEST or PLUGIN_INCOMPATIBLE. Runs no code of the plugin. */
  manifest(located: LocatedPlugin): Manifest {
    return readManifest(this.#options.source, located.directory, located.name, this.#options.coreVersion)
  }

  /** Imports the plugin's code. A higher generation sees the files as they are now. Throws PLUGIN_IMPORT. */
  async importPlugin(
    located: LocatedPlugin,
    manifest: Manifest,
    generation: number,
  ): Promise<PluginDefinition> {
    const { source } = this.#options
    const file = this.#entryFile(located, manifest)
    const transpiler = located.origin !== 'built-in' && /\.[cm]?tsx?$/.test(file) ? 'tsx' : 'native'
    let module: Readonly<Record<string, unknown>>
    try {
      source.release(located.directory)
      module = await source.importModule({ directory: located.directory, file, generation, transpiler })
    } catch (error) {
      throw kernelError(
        'PLUGIN_IMPORT',
        `plugin ${located.name}: importing ${file} failed: ${messageOf(error)}`,
        {
          cause: error,
        },
      )
    }
    const definition = defaultExport(module)
    if (definition !== undefined) return definition
    throw kernelError(
      'PLUGIN_IMPORT',
      `plugin ${located.name}: ${file}: expected "export default definePlugin({ … })"`,
    )
  }

  #entryFile(located: LocatedPlugin, manifest: Manifest): string {
    const { source } = this.#options
    const candidates = manifest.entry === undefined ? ENTRY_CANDIDATES : [manifest.entry]
    for (const candidate of candidates) {
      const file = source.resolvePath(located.directory, candidate)
      if (source.fileExists(file)) return file
    }
    throw kernelError(
      'PLUGIN_IMPORT',
      `plugin ${located.name}: ${located.directory}: there is no file ${candidates.join(', ')}; ` +
        'name it in "exports" of package.json',
    )
  }

  #findPackage(base: string, entry: string): string | undefined {
    const { source } = this.#options
    let directory = base
    for (let depth = 0; depth < PARENTS_MAX; depth++) {
      const found = source.realDirectory(source.resolvePath(directory, `node_modules/${entry}`))
      if (found !== undefined) return found
      const parent = source.resolvePath(directory, '..')
      if (parent === directory) return undefined
      directory = parent
    }
    return undefined
  }
}

/** CommonJS modules wrap their default export once more. */
function defaultExport(module: Readonly<Record<string, unknown>>): PluginDefinition | undefined {
  let candidate: unknown = module['default']
  for (let depth = 0; depth < 2; depth++) {
    if (typeof candidate !== 'object' || candidate === null) return undefined
    if ('apply' in candidate && typeof candidate.apply === 'function') return candidate as PluginDefinition
    candidate = 'default' in candidate ? candidate.default : undefined
  }
  return undefined
}
