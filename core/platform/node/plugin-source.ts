/**
 * Files and modules for the plugin host (interface: core/kernel/source.ts, which this satisfies by shape because
 * a lower layer may not import a higher one).
 *
 * Reloading: Node never forgets a module, so every generation of a plugin gets its own URLs. A resolve hook passes
 * `?cairn-generation=ID.N` from a module to those it imports, but only inside the plugin's own folder: core and
 * dependencies stay shared, one instance in the process. The hook sits outside tsx's, so that it can also take
 * tsx's marker off everything that is not the plugin's (a second copy of core would break `instanceof`). tsx is only
 * loaded when a plugin needs it. A replaced generation stays in memory until the process ends: some kilobytes per
 * reload of code; taps, timers and services are freed by the kernel.
 */
import { existsSync, readdirSync, readFileSync, realpathSync, statSync } from 'node:fs'
import { createRequire, registerHooks } from 'node:module'
import { resolve, sep } from 'node:path'
import { pathToFileURL } from 'node:url'

const GENERATION = 'cairn-generation'
const TSX_NAMESPACE = 'tsx-namespace'
const TSX_NAMESPACE_VALUE = 'cairn-plugin'

interface TsxApi {
  import(specifier: string, parentURL: string): Promise<unknown>
}

export interface NodeImportRequest {
  readonly directory: string
  readonly file: string
  readonly generation: number
  readonly transpiler: 'native' | 'tsx'
}

/** Roots by id, for all sources of the process: module hooks are process-wide. */
const rootUrlById = new Map<string, string>()
const idByDirectory = new Map<string, string>()
let hooks: { deregister(): void } | undefined
let tsx: Promise<TsxApi> | undefined

function installResolveHook(): void {
  hooks?.deregister()
  hooks = registerHooks({
    resolve(specifier, context, next) {
      const resolved = next(specifier, context)
      const tag = generationOf(context.parentURL)
      if (tag === null || !resolved.url.startsWith('file:')) return resolved
      const root = rootUrlById.get(tag.split('.')[0] ?? '')
      if (root === undefined) return resolved
      const url = new URL(resolved.url)
      const inRoot = url.href.startsWith(root)
      const inPackages = (
        inRoot ? url.pathname.slice(new URL(root).pathname.length - 1) : url.pathname
      ).includes('/node_modules/')
      if (inRoot && !inPackages) {
        url.searchParams.set(GENERATION, tag)
        return { ...resolved, url: url.href }
      }
      if (!url.searchParams.has(TSX_NAMESPACE) || (inPackages && /\.[cm]?tsx?$/.test(url.pathname)))
        return resolved
      url.searchParams.delete(TSX_NAMESPACE)
      // tsx says "module" also of TypeScript, which it would have translated: Node must find the format itself.
      return { ...resolved, url: url.href, format: null }
    },
  })
}

function generationOf(parentUrl: string | undefined): string | null {
  if (parentUrl === undefined || !parentUrl.includes(GENERATION)) return null
  return new URL(parentUrl).searchParams.get(GENERATION)
}

async function startTsx(): Promise<TsxApi> {
  const before = process.env['TSX_DISABLE_CACHE']
  // tsx keeps translated code in /tmp under a name anybody can guess and create first: root would run their code.
  process.env['TSX_DISABLE_CACHE'] = '1'
  const { register } = await import('tsx/esm/api')
  if (before === undefined) delete process.env['TSX_DISABLE_CACHE']
  else process.env['TSX_DISABLE_CACHE'] = before
  const api = register({ namespace: TSX_NAMESPACE_VALUE, tsconfig: false })
  installResolveHook() // again: the hook registered last runs first
  return api
}

function idOf(directory: string): string {
  const known = idByDirectory.get(directory)
  if (known !== undefined) return known
  const id = String(idByDirectory.size + 1)
  idByDirectory.set(directory, id)
  rootUrlById.set(id, `${pathToFileURL(directory).href}/`)
  return id
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR')
}

export class NodePluginSource {
  /** CommonJS plugins are cached by file name, so a reload must drop them there. */
  readonly #requireCache = createRequire(import.meta.url).cache

  readText(path: string): string | undefined {
    try {
      return readFileSync(path, 'utf8')
    } catch (error) {
      if (isMissing(error)) return undefined
      throw error
    }
  }

  realDirectory(path: string): string | undefined {
    try {
      const real = realpathSync(path)
      return statSync(real).isDirectory() ? real : undefined
    } catch (error) {
      if (isMissing(error)) return undefined
      throw error
    }
  }

  listDirectories(path: string): readonly string[] {
    try {
      return readdirSync(path, { withFileTypes: true })
        .filter((entry) => entry.isDirectory() || entry.isSymbolicLink())
        .map((entry) => entry.name)
        .sort()
    } catch (error) {
      if (isMissing(error)) return []
      throw error
    }
  }

  fileExists(path: string): boolean {
    return existsSync(path)
  }

  resolvePath(base: string, path: string): string {
    return resolve(base, path)
  }

  async importModule(request: NodeImportRequest): Promise<Readonly<Record<string, unknown>>> {
    if (hooks === undefined) installResolveHook()
    const url = pathToFileURL(request.file)
    url.searchParams.set(GENERATION, `${idOf(request.directory)}.${request.generation}`)
    const module: unknown =
      request.transpiler === 'tsx'
        ? await (await (tsx ??= startTsx())).import(url.href, import.meta.url)
        : await import(url.href)
    return module as Readonly<Record<string, unknown>>
  }

  release(directory: string): void {
    const inside = directory + sep
    const packages = `${sep}node_modules${sep}`
    for (const file of Object.keys(this.#requireCache)) {
      if (file.startsWith(inside) && !file.slice(directory.length).includes(packages))
        delete this.#requireCache[file]
    }
  }
}
