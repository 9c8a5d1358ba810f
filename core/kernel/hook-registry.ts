/**
 * All hooks of a process. Every room describes the hooks it fires in its own `hooks.ts` and declares them:
 *
 *   export const chunkHooks = { written: syncHook.notify<[event: ChunkWritten]>({ name: 'chunk.written', ... }) }
 *   declare module '../kernel/hook-registry.ts' {
 *     interface HookDefinitions { chunk: typeof chunkHooks }
 *   }
 *
 * The composition root gathers them: `new HookRegistry({ ...kernelHooks, chunk: chunkHooks }, clock)`. Rooms fire
 * `registry.hooks.chunk.written.call(event)`; plugins get `tapsFor(owner)`, the same tree with `tap` only.
 * Rejected: a generic parameter on every plugin type, because authors would have to name it.
 */
import type { Clock } from '../platform/clock.ts'
import { assert } from '../base/assert.ts'
import { Hook } from './hook.ts'
import type { HookDefinition, TapFunction, TapOptions, TapOwner } from './hook.ts'

/** Extended by declaration in the rooms. Keys are groups: the part of a hook's name before the dot. */
export interface HookDefinitions {}

/** Any tree of definitions, for registries that know only some of the rooms (tests, the CLI). */
export type HookTree = { readonly [group: string]: { readonly [name: string]: HookDefinition } }

export type HooksOf<Tree> = {
  readonly [Group in keyof Tree]: {
    readonly [Name in keyof Tree[Group]]: Tree[Group][Name] extends HookDefinition
      ? Hook<Tree[Group][Name]>
      : never
  }
}

/** What a plugin sees of one hook. */
export interface TapPoint<D> {
  /** The tap is removed when the plugin stops, or earlier by the returned function. */
  tap(run: TapFunction<D>, options?: TapOptions): () => void
}

/** `kernel.hooks` of a plugin. */
export type HookTaps<Tree = HookDefinitions> = {
  readonly [Group in keyof Tree]: { readonly [Name in keyof Tree[Group]]: TapPoint<Tree[Group][Name]> }
}

export class HookRegistry<Tree = HookDefinitions> {
  readonly hooks: HooksOf<Tree>
  readonly #all: Hook[] = []

  constructor(definitions: Tree, clock: Clock) {
    const tree: Record<string, Record<string, Hook>> = {}
    for (const [group, members] of Object.entries(definitions as HookTree)) {
      const built: Record<string, Hook> = {}
      for (const [name, definition] of Object.entries(members)) {
        assert(definition.name === `${group}.${name}`, `hook ${definition.name} is filed as ${group}.${name}`)
        const hook = new Hook(definition, clock)
        built[name] = hook
        this.#all.push(hook)
      }
      tree[group] = Object.freeze(built)
    }
    this.hooks = Object.freeze(tree) as unknown as HooksOf<Tree>
  }

  /** Number of taps over all hooks: leak tests and `cairn plugin list --json` read it. */
  get tapCount(): number {
    return this.#all.reduce((sum, hook) => sum + hook.tapCount, 0)
  }

  /** The plugin's view: `own` hands each tap's disposer to the plugin's scope and may return a wrapped one. */
  tapsFor(owner: TapOwner, own: (disposer: () => void, name: string) => () => void): HookTaps<Tree> {
    const tree: Record<string, Record<string, TapPoint<HookDefinition>>> = {}
    for (const hook of this.#all) {
      const [group = '', name = ''] = hook.definition.name.split('.')
      const members = (tree[group] ??= {})
      members[name] = {
        tap: (run, options) => own(hook.tap(owner, run, options), `tap of ${hook.definition.name}`),
      }
    }
    return Object.freeze(tree) as unknown as HookTaps<Tree>
  }

  invalidateOrder(): void {
    for (const hook of this.#all) hook.invalidateOrder()
  }
}
