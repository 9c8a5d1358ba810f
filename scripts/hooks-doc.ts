// Writes docs/hooks.md from the hook definitions of all rooms (core/<room>/hooks.ts), so that the document cannot
// differ from the code. test/tidy/hooks-doc.test.ts compares: a change of the hooks shows in review.
//   node scripts/hooks-doc.ts        after a wanted change

import { globSync, writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { HookDefinition } from '../core/kernel/hook.ts'

const rootDirectory = resolve(import.meta.dirname, '..')
export const hooksDocument = 'docs/hooks.md'

const results = {
  notify: 'nothing; everybody is told',
  veto: 'a denial `{ reason, code?, next? }`, or nothing to allow',
  transform: 'the value to hand on, or nothing to leave it as it is',
  collect: 'a contribution, or nothing',
} as const

const onError = {
  notify: 'reported; the next plugin is still told',
  veto: 'reported; does not deny',
  transform: 'reported; the value stays as it was',
  collect: 'reported; the plugin contributes nothing',
} as const

const onErrorClosed = {
  ...onError,
  veto: 'reported, and **denies**; so does a plugin that failed',
  transform: 'reported, and **the call fails**; also while a plugin that tapped it is down',
  collect: 'reported, and **the call fails**; also while a plugin that tapped it is down',
} as const

function isDefinition(value: unknown): value is HookDefinition {
  return (
    typeof value === 'object' && value !== null && 'kind' in value && 'mode' in value && 'parameters' in value
  )
}

/** Definitions among the values of a module, at any depth of its plain objects. */
function definitionsIn(value: unknown, depth = 0): HookDefinition[] {
  if (isDefinition(value)) return [value]
  if (typeof value !== 'object' || value === null || depth > 3) return []
  return Object.values(value).flatMap((inner) => definitionsIn(inner, depth + 1))
}

async function collectDefinitions(): Promise<{ room: string; definition: HookDefinition }[]> {
  const found: { room: string; definition: HookDefinition }[] = []
  for (const path of globSync('core/*/hooks.ts', { cwd: rootDirectory }).sort()) {
    const module = (await import(pathToFileURL(resolve(rootDirectory, path)).href)) as Record<string, unknown>
    const unique = new Set(definitionsIn({ ...module }))
    if (unique.size === 0) throw new Error(`${path} defines no hook`)
    for (const definition of unique) found.push({ room: path.split('/')[1] ?? '', definition })
  }
  return found.sort((a, b) => (a.definition.name < b.definition.name ? -1 : 1))
}

function section(room: string, definition: HookDefinition): string {
  const { name, kind, mode, since, stability, onFault, description, parameters, returns, deadlineMs } =
    definition
  const errors = onFault === 'ignore' ? onError : onErrorClosed
  const lines = [
    `## ${name}`,
    '',
    description,
    '',
    '| | |',
    '|---|---|',
    `| kind | ${kind}, ${mode === 'sync' ? 'synchronous' : 'asynchronous'} |`,
    ...parameters.map((parameter) => `| gets | ${parameter} |`),
    `| returns | ${returns === undefined ? results[kind] : `${returns}; or nothing`} |`,
    `| an error is | ${errors[kind]} |`,
    ...(mode === 'async' ? [`| deadline | ${(deadlineMs ?? 10_000) / 1000} s per plugin |`] : []),
    `| fired by | core/${room} |`,
    `| since | ${since}, ${stability} |`,
  ]
  return lines.join('\n')
}

export async function describeHooks(): Promise<string> {
  const definitions = await collectDefinitions()
  const sections = definitions.map(({ room, definition }) => section(room, definition))
  const head =
    '# Hooks\n\nWritten by `node scripts/hooks-doc.ts` from the definitions in `core/*/hooks.ts`; do not edit. ' +
    'How to use them: [plugins.md](plugins.md). In a plugin: `kernel.hooks.GROUP.NAME.tap(…)`.'
  return `${[head, ...sections].join('\n\n')}\n`
}

if (import.meta.main) writeFileSync(resolve(rootDirectory, hooksDocument), await describeHooks())
