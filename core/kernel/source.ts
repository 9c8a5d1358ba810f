/**
 * The only way in which the kernel touches files and modules. The real one is core/platform/node/plugin-source.ts;
 * tests may use it too, or one in memory.
 */

export interface ImportRequest {
  /** Folder of the plugin, real path: files in it are loaded anew at every generation, all others are shared. */
  readonly directory: string
  /** Absolute path of the module to import. */
  readonly file: string
  /** Grows at every reload. */
  readonly generation: number
  /** `native`: Node runs it as it is. `tsx`: TypeScript that Node would refuse or not understand. */
  readonly transpiler: 'native' | 'tsx'
}

export interface PluginSource {
  /** Text of a file, or undefined when there is none. Throws on anything else that goes wrong. */
  readText(path: string): string | undefined
  /** The folder's real path (links followed), or undefined when there is no such folder. */
  realDirectory(path: string): string | undefined
  /** Names of the folders in a folder, sorted; empty when it does not exist. */
  listDirectories(path: string): readonly string[]
  fileExists(path: string): boolean
  /** Absolute path of `path` seen from `base`. */
  resolvePath(base: string, path: string): string
  /** Imports a module and returns its exports. Runs foreign code. */
  importModule(request: ImportRequest): Promise<Readonly<Record<string, unknown>>>
  /** Lets go of what importing this folder has cached, as far as the runtime allows. */
  release(directory: string): void
}
