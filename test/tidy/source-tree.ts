// What the tidy tests read: every TypeScript file of this repository, parsed once by oxc-parser, which
// knows TypeScript itself. A test that reads code must say how much it read: `sourceFiles` throws when the
// tree it found is smaller than the floor below, so that no tidy test can pass on nothing.
// It judges nothing; the tests beside it do.

import { globSync, readFileSync } from 'node:fs'
import { dirname, join, normalize, resolve } from 'node:path'
import { parseSync, Visitor, type VisitorObject } from 'oxc-parser'

export const rootDirectory = resolve(import.meta.dirname, '../..')

/** Raise these as the tree grows; lower them only in the commit that removes the files. */
const sourceFileCountFloor = 130
const coreFileCountFloor = 90

type ParseResult = ReturnType<typeof parseSync>

export interface SourceFile {
  /** Relative to the repository, with forward slashes. */
  path: string
  text: string
  parsed: ParseResult
  isTest: boolean
}

export interface ImportReference {
  specifier: string
  line: number
  /** The names taken, as exported by the other side; empty for `import 'x'`, `import('x')` and `export *`. */
  names: string[]
}

export function listFiles(patterns: string[]): string[] {
  return globSync(patterns, {
    cwd: rootDirectory,
    exclude: (path) => /(^|\/)(node_modules|testdata|var|\.git)(\/|$)/.test(path),
  })
    .map((path) => path.replaceAll('\\', '/'))
    .sort()
}

export function readText(path: string): string {
  return readFileSync(resolve(rootDirectory, path), 'utf8')
}

export function parseSource(path: string, text: string): SourceFile {
  const parsed = parseSync(path, text)
  const error = parsed.errors[0]
  if (error !== undefined) throw new Error(`${path} does not parse: ${error.message}`)
  return { path, text, parsed, isTest: path.endsWith('.test.ts') || path.startsWith('test/') }
}

let loaded: SourceFile[] | undefined

/** All TypeScript files of core, plugins, test, bench and scripts. */
export function sourceFiles(): SourceFile[] {
  if (loaded !== undefined) return loaded
  const paths = listFiles(['{core,plugins,test,bench,scripts,appliance}/**/*.ts'])
  const corePaths = paths.filter((path) => path.startsWith('core/'))
  if (paths.length < sourceFileCountFloor || corePaths.length < coreFileCountFloor) {
    throw new Error(
      `read only ${paths.length} source files, ${corePaths.length} of them in core; ` +
        `expected at least ${sourceFileCountFloor} and ${coreFileCountFloor}: is the listing broken?`,
    )
  }
  loaded = paths.map((path) => parseSource(path, readText(path)))
  return loaded
}

export function lineOf(file: SourceFile, offset: number): number {
  return file.text.slice(0, offset).split('\n').length
}

export function visit(file: SourceFile, visitor: VisitorObject): void {
  new Visitor(visitor).visit(file.parsed.program)
}

/** Every way a file can name another one: import, import type, export from, import(), import('x').T. */
export function importsOf(file: SourceFile): ImportReference[] {
  const references: ImportReference[] = []
  const add = (specifier: string, offset: number, names: string[]) =>
    references.push({ specifier, line: lineOf(file, offset), names })
  const nameOf = (name: { name?: string | null }) => (typeof name.name === 'string' ? [name.name] : [])
  for (const one of file.parsed.module.staticImports) {
    add(
      one.moduleRequest.value,
      one.start,
      one.entries.flatMap((entry) => nameOf(entry.importName)),
    )
  }
  for (const one of file.parsed.module.staticExports) {
    for (const entry of one.entries) {
      if (entry.moduleRequest) add(entry.moduleRequest.value, one.start, nameOf(entry.importName))
    }
  }
  visit(file, {
    ImportExpression(node) {
      if (node.source.type === 'Literal' && typeof node.source.value === 'string') {
        add(node.source.value, node.start, [])
      }
    },
    TSImportType(node) {
      add(node.source.value, node.start, [])
    },
  })
  return references
}

/** The repository path a relative specifier names, or undefined for a package. */
export function resolveRelative(fromPath: string, specifier: string): string | undefined {
  return specifier.startsWith('.') ? normalize(join(dirname(fromPath), specifier)) : undefined
}
