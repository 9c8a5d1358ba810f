/**
 * The experiment build of `npm run bench -- --vs experiment`: every process of a cluster that is started with
 * `node --import` of this file runs the production code with intents and page checksums switched off, so that their
 * cost can be seen (docs/performance.md). It is no way to keep data: nothing would find a bad page, and nothing would
 * be known of what was being written when a process died.
 *
 * Off are: page checksums in mount and chunk servers (computed, verified, recomputed for partial pages); page records
 * on disk, so that a flush syncs data alone; the open list with its record and sync before a first write; the commits
 * in which the quorum grants and clears intents. On stay: everything else, also the checksums of frame headers and of
 * the servers' own logs, and the one question of the mount where a chunk lies.
 *
 * Modules that hold nothing else are replaced by those beside this file; methods that do other work, too, are
 * overridden one by one. A seam that is gone is an error: an experiment in which nothing is off would flatter us.
 */
import { registerHooks } from 'node:module'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const core = path.join(import.meta.dirname, '..', '..', 'core')

interface Replacement {
  readonly module: string
  readonly by: string
  /** Who gets the replacement; others import the real one. */
  readonly importers: RegExp
}

const replacements: readonly Replacement[] = [
  {
    module: 'wire/checksum.ts',
    by: 'no-page-checksums.ts',
    // Not frames, superblocks, logs and page records' own images (of which none is written).
    importers: /^(client|chunkserver\/(store|replica|repair))\//,
  },
  { module: 'chunkserver/replica/open-list.ts', by: 'no-open-list.ts', importers: /^chunkserver\// },
  {
    module: 'metadata/chunks/intents.ts',
    by: 'no-intents.ts',
    importers: /^metadata\/chunks\/handlers\.ts$/,
  },
]

const used = new Set<Replacement>()

registerHooks({
  resolve(specifier, context, nextResolve) {
    const resolved = nextResolve(specifier, context)
    if (!resolved.url.startsWith('file:') || context.parentURL === undefined) return resolved
    const module = path.relative(core, fileURLToPath(resolved.url))
    const importer = path.relative(core, fileURLToPath(context.parentURL))
    const found = replacements.find((one) => one.module === module && one.importers.test(importer))
    if (found === undefined) return resolved
    used.add(found)
    return { ...resolved, url: pathToFileURL(path.join(import.meta.dirname, found.by)).href }
  },
})

for (const { module, by } of replacements) {
  const real = Object.keys(await import(path.join(core, module)))
  const missing = Object.keys(await import(path.join(import.meta.dirname, by))).filter(
    (name) => !real.includes(name),
  )
  if (missing.length > 0) throw new Error(`${by} replaces what ${module} has no more: ${missing.join(', ')}`)
}

/** Replaces a method of a class; `make` gets the one that was there. */
function override<Instance extends object, Name extends keyof Instance>(
  prototype: Instance,
  name: Name,
  make: (before: Instance[Name]) => Instance[Name],
): void {
  if (!Object.hasOwn(prototype, name)) throw new Error(`the experiment finds no method ${String(name)}`)
  prototype[name] = make(prototype[name])
}

await import('../../core/metadata/chunks/handlers.ts')
const { ChunkStore } = await import('../../core/chunkserver/store/chunk-store.ts')
const { RaftLog } = await import('../../core/metadata/quorum/raft-log.ts')

// Records stay in memory; no flush writes them.
override(ChunkStore.prototype, 'touch', () => () => {})

override(RaftLog.prototype, 'propose', (before) => {
  const propose = function (this: InstanceType<typeof RaftLog>, command: Parameters<typeof before>[0]) {
    if (command.type === 'intent.grant') return Promise.resolve({ ok: { granted: command.chunks } })
    if (command.type === 'intent.clear') return Promise.resolve({ ok: { cleared: command.chunks } })
    return before.call(this, command)
  }
  return propose as typeof before
})

for (const replacement of replacements) {
  if (!used.has(replacement))
    throw new Error(`nobody imports ${replacement.module} as the experiment expects`)
}
