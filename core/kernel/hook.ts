/**
 * Hooks: the places where plugins may act. A small facade over tapable, because raw tapable cannot untap,
 * leaks when taps are muted, and lets the first error end the call for everybody else (design: facts).
 *
 *   notify      everybody is told                          -> nothing
 *   veto        anybody may refuse                         -> the first denial, or undefined
 *   transform   each may replace the value                 -> the last value
 *   collect     each may contribute                        -> [{ plugin, value }], in tap order
 *
 * Promises: an error in one tap never reaches the caller nor the next tap; it is reported to the tap's owner
 * with plugin and hook name. Hooks with `onFault: 'fail-closed'` are the exception that safety needs: a veto
 * denies, a transform or collect call throws HOOK_FAULT. Disposing a tap frees it: tap records are ours, and
 * the tapable hook is rebuilt from them. Order: stage, then rank of the plugin, then order of tapping.
 * Async taps have a deadline.
 */
import { AsyncParallelHook, AsyncSeriesBailHook, AsyncSeriesWaterfallHook } from 'tapable'
import { SyncBailHook, SyncHook, SyncWaterfallHook } from 'tapable'
import { assert } from '../base/assert.ts'
import type { Clock } from '../platform/clock.ts'
import { kernelError, messageOf } from './errors.ts'

export type HookKind = 'notify' | 'veto' | 'transform' | 'collect'
export type HookMode = 'sync' | 'async'
export type Disposer = () => void | Promise<void>

/** Taps one hook may hold: more is a plugin that taps in a loop. */
export const TAPS_PER_HOOK_MAX = 1000
/** How long an async tap may take, unless the definition says otherwise. */
export const TAP_DEADLINE_MS = 10_000

/** Why a veto hook said no. */
export interface Denial {
  /** One sentence for a person. */
  readonly reason: string
  readonly code?: string
  readonly next?: string
}

export interface AttributedDenial extends Denial {
  readonly plugin: string
}

export interface Collected<Item> {
  readonly plugin: string
  readonly value: Item
}

/** What a room writes down about a hook it fires. `parameters` is text for docs/hooks.md: "name: Type, meaning". */
export interface HookTraits<Arguments extends readonly unknown[]> {
  readonly name: string
  readonly since: string
  readonly stability: 'stable' | 'experimental' | 'deprecated'
  readonly onFault: 'ignore' | 'fail-closed'
  readonly description: string
  readonly parameters: { readonly [Index in keyof Arguments]: string }
  readonly returns?: string
  readonly deadlineMs?: number
}

export interface HookDefinition<
  Kind extends HookKind = HookKind,
  Mode extends HookMode = HookMode,
  Arguments extends readonly unknown[] = readonly unknown[],
  Item = unknown,
> extends Omit<HookTraits<Arguments>, 'parameters'> {
  readonly kind: Kind
  readonly mode: Mode
  readonly parameters: readonly string[]
  /** Never present at run time: carries the types. */
  readonly types?: { readonly arguments: Arguments; readonly item: Item }
}

function define<Kind extends HookKind, Mode extends HookMode, Arguments extends readonly unknown[], Item>(
  kind: Kind,
  mode: Mode,
  traits: HookTraits<Arguments>,
): HookDefinition<Kind, Mode, Arguments, Item> {
  const parameters: readonly string[] = [...(traits.parameters as readonly string[])]
  return Object.freeze({ ...traits, kind, mode, parameters })
}

type NotifyTraits<A extends readonly unknown[]> = HookTraits<A> & { readonly onFault: 'ignore' }

/** Definitions of hooks whose call returns at once. */
export const syncHook = {
  notify: <A extends readonly unknown[]>(traits: NotifyTraits<A>) =>
    define<'notify', 'sync', A, void>('notify', 'sync', traits),
  veto: <A extends readonly unknown[]>(traits: HookTraits<A>) =>
    define<'veto', 'sync', A, Denial>('veto', 'sync', traits),
  /** The first argument is the value that is handed on. */
  transform: <A extends readonly [unknown, ...unknown[]]>(traits: HookTraits<A>) =>
    define<'transform', 'sync', A, A[0]>('transform', 'sync', traits),
  collect: <A extends readonly unknown[], Item>(traits: HookTraits<A>) =>
    define<'collect', 'sync', A, Item>('collect', 'sync', traits),
}

/** Definitions of hooks whose call returns a promise. */
export const asyncHook = {
  notify: <A extends readonly unknown[]>(traits: NotifyTraits<A>) =>
    define<'notify', 'async', A, void>('notify', 'async', traits),
  veto: <A extends readonly unknown[]>(traits: HookTraits<A>) =>
    define<'veto', 'async', A, Denial>('veto', 'async', traits),
  transform: <A extends readonly [unknown, ...unknown[]]>(traits: HookTraits<A>) =>
    define<'transform', 'async', A, A[0]>('transform', 'async', traits),
  collect: <A extends readonly unknown[], Item>(traits: HookTraits<A>) =>
    define<'collect', 'async', A, Item>('collect', 'async', traits),
}

export type ArgumentsOf<D> = D extends HookDefinition<HookKind, HookMode, infer A, unknown> ? A : never
type ItemOf<D> = D extends HookDefinition<HookKind, HookMode, readonly unknown[], infer Item> ? Item : never
// void is what a tap that says nothing returns
type TapReturn<D> = D extends { readonly kind: 'notify' } ? void : ItemOf<D> | undefined | void
type Later<D, T> = D extends { readonly mode: 'async' } ? T | Promise<T> : T

/** The function a plugin hands to `tap`. Returning undefined means: no objection, no change, nothing to add. */
export type TapFunction<D> = (...args: ArgumentsOf<D>) => Later<D, TapReturn<D>>

type CallResult<D> = D extends { readonly kind: 'notify' }
  ? void
  : D extends { readonly kind: 'veto' }
    ? AttributedDenial | undefined
    : D extends { readonly kind: 'transform' }
      ? ItemOf<D>
      : Collected<ItemOf<D>>[]

export type HookCall<D> = (
  ...args: ArgumentsOf<D>
) => D extends { readonly mode: 'async' } ? Promise<CallResult<D>> : CallResult<D>

export interface TapOptions {
  /** Lower runs earlier; 0 unless told. */
  readonly stage?: number
}

/** Whoever taps: one per plugin, made by the host. */
export interface TapOwner {
  readonly plugin: string
  /** Position in the start order. */
  readonly rank: number
  /**
   * True while the plugin is down but still wanted (failed, tripped, reloading, waiting). Its fail-closed taps
   * then stay as placeholders that deny, or else a crashed licence check would allow everything.
   */
  readonly holding: boolean
  /** True from the fault that trips the plugin until it has stopped: its taps are no longer called. */
  readonly muted: boolean
  /** Placeholders; the host releases them when the plugin is active again or disabled. */
  readonly held: Set<() => void>
  reportFault(hook: string, error: unknown): void
}

interface TapRecord {
  readonly owner: TapOwner
  readonly stage: number
  readonly sequence: number
  run: (...args: unknown[]) => unknown
  active: boolean
  held: boolean
}

/** The common face of tapable's hooks, as far as it is used here. */
interface CompiledHook {
  tap(name: string, run: (...args: never[]) => unknown): void
  tapPromise?(name: string, run: (...args: never[]) => Promise<unknown>): void
  call?(...args: unknown[]): unknown
  promise?(...args: unknown[]): Promise<unknown>
}

function heldError(plugin: string): Error {
  return kernelError('HOOK_FAULT', `plugin ${plugin} is not running, and nothing may pass without it`)
}

export class Hook<D extends HookDefinition = HookDefinition> {
  readonly definition: D
  readonly #clock: Clock
  #records: TapRecord[] = []
  #compiled: CompiledHook | undefined
  #sequence = 0

  constructor(definition: D, clock: Clock) {
    this.definition = definition
    this.#clock = clock
  }

  get tapCount(): number {
    return this.#records.length
  }

  /** Fires the hook. Only the room that owns it does this. */
  readonly call: HookCall<D> = ((...args: unknown[]) =>
    this.definition.mode === 'sync' ? this.#callSync(args) : this.#callAsync(args)) as unknown as HookCall<D>

  /** Adds a tap; the returned disposer removes it and may be called twice. */
  tap(owner: TapOwner, run: TapFunction<D>, options: TapOptions = {}): () => void {
    const { name } = this.definition
    if (typeof run !== 'function')
      throw kernelError('PLUGIN_APPLY', `${owner.plugin}: the tap of ${name} is not a function`)
    if (this.#records.length >= TAPS_PER_HOOK_MAX)
      throw kernelError('PLUGIN_LIMIT', `${owner.plugin}: ${name} already has ${TAPS_PER_HOOK_MAX} taps`)
    const record: TapRecord = {
      owner,
      stage: options.stage ?? 0,
      sequence: this.#sequence++,
      run: run as unknown as (...args: unknown[]) => unknown,
      active: true,
      held: false,
    }
    this.#records.push(record)
    this.#compiled = undefined
    return () => this.#dispose(record)
  }

  /** Ranks changed (a plugin was enabled): sort again before the next call. */
  invalidateOrder(): void {
    this.#compiled = undefined
  }

  #dispose(record: TapRecord): void {
    if (!record.active || record.held) return
    if (record.owner.holding && this.definition.onFault === 'fail-closed') {
      record.held = true
      record.run = () => {
        throw heldError(record.owner.plugin)
      }
      record.owner.held.add(() => this.#remove(record))
      return
    }
    this.#remove(record)
  }

  #remove(record: TapRecord): void {
    record.active = false
    const index = this.#records.indexOf(record)
    if (index < 0) return
    this.#records.splice(index, 1)
    this.#compiled = undefined
  }

  #callSync(args: unknown[]): unknown {
    if (this.#records.length === 0) return this.#resultWithoutTaps(args)
    const compiled = this.#compile()
    assert(compiled.call !== undefined, `${this.definition.name}: a sync hook has call()`)
    if (this.definition.kind !== 'collect') return compiled.call(...args)
    const sink: Collected<unknown>[] = []
    compiled.call(sink, ...args)
    return sink
  }

  async #callAsync(args: unknown[]): Promise<unknown> {
    if (this.#records.length === 0) return this.#resultWithoutTaps(args)
    const compiled = this.#compile()
    assert(compiled.promise !== undefined, `${this.definition.name}: an async hook has promise()`)
    if (this.definition.kind !== 'collect') return compiled.promise(...args)
    const sink: (Collected<unknown> | undefined)[] = []
    await compiled.promise(sink, ...args)
    return sink.filter((item) => item !== undefined)
  }

  #resultWithoutTaps(args: unknown[]): unknown {
    if (this.definition.kind === 'transform') return args[0]
    return this.definition.kind === 'collect' ? [] : undefined
  }

  #compile(): CompiledHook {
    if (this.#compiled !== undefined) return this.#compiled
    this.#records.sort((a, b) => a.stage - b.stage || a.owner.rank - b.owner.rank || a.sequence - b.sequence)
    const hook = newTapableHook(this.definition)
    this.#records.forEach((record, index) => {
      const guard =
        this.definition.mode === 'sync' ? this.#guardSync(record) : this.#guardAsync(record, index)
      if (this.definition.mode === 'sync') hook.tap(record.owner.plugin, guard)
      else hook.tapPromise?.(record.owner.plugin, guard as (...args: never[]) => Promise<unknown>)
    })
    this.#compiled = hook
    return hook
  }

  #guardSync(record: TapRecord): (...args: never[]) => unknown {
    const { kind } = this.definition
    if (kind === 'collect')
      return (sink: Collected<unknown>[], ...args: unknown[]) => {
        const value = this.#runSync(record, args)
        if (value !== undefined) sink.push({ plugin: record.owner.plugin, value })
      }
    return (...args: unknown[]) => this.#outcome(record, this.#runSync(record, args))
  }

  #runSync(record: TapRecord, args: unknown[]): unknown {
    if (!record.active) return undefined
    if (record.owner.muted) return this.#mutedOutcome(record)
    try {
      const value = record.run(...args)
      if (!isPromise(value)) return value
      value.then(undefined, (error: unknown) => record.owner.reportFault(this.definition.name, error))
      if (this.definition.kind === 'notify') return undefined
      throw kernelError('HOOK_FAULT', 'returned a promise, but this hook is synchronous')
    } catch (error) {
      return this.#fault(record, error)
    }
  }

  #guardAsync(record: TapRecord, index: number): (...args: never[]) => Promise<unknown> {
    if (this.definition.kind === 'collect')
      return async (sink: (Collected<unknown> | undefined)[], ...args: unknown[]) => {
        const value = await this.#runAsync(record, args)
        sink[index] = value === undefined ? undefined : { plugin: record.owner.plugin, value }
      }
    return async (...args: unknown[]) => this.#outcome(record, await this.#runAsync(record, args))
  }

  async #runAsync(record: TapRecord, args: unknown[]): Promise<unknown> {
    if (!record.active) return undefined
    if (record.owner.muted) return this.#mutedOutcome(record)
    try {
      const value = record.run(...args)
      return isPromise(value) ? await this.#withDeadline(value) : value
    } catch (error) {
      return this.#fault(record, error)
    }
  }

  #withDeadline(value: PromiseLike<unknown>): Promise<unknown> {
    const deadlineMs = this.definition.deadlineMs ?? TAP_DEADLINE_MS
    return new Promise((resolve, reject) => {
      const timer = this.#clock.setTimer(deadlineMs, () =>
        reject(kernelError('HOOK_FAULT', `gave no answer within ${deadlineMs} ms`)),
      )
      value.then(
        (answer) => {
          timer.cancel()
          resolve(answer)
        },
        (error: unknown) => {
          timer.cancel()
          reject(error)
        },
      )
    })
  }

  #mutedOutcome(record: TapRecord): unknown {
    if (this.definition.onFault === 'ignore') return undefined
    return this.#fault(record, heldError(record.owner.plugin))
  }

  /** What a tap's value means to tapable: bail and waterfall hooks go on at undefined. */
  #outcome(record: TapRecord, value: unknown): unknown {
    if (this.definition.kind === 'notify' || value === undefined || value === null) return undefined
    if (this.definition.kind === 'transform') return value
    const denial = value as Partial<Denial>
    if (typeof denial.reason === 'string') return { ...denial, plugin: record.owner.plugin }
    return this.#fault(record, kernelError('HOOK_FAULT', 'returned something that is not { reason }'))
  }

  /** Reports, then does what the fault policy of the hook says. */
  #fault(record: TapRecord, error: unknown): unknown {
    const { name, kind, onFault } = this.definition
    const { plugin } = record.owner
    if (!record.held && !record.owner.muted) record.owner.reportFault(name, error)
    if (onFault === 'ignore') return undefined
    if (kind === 'veto')
      return {
        plugin,
        code: 'HOOK_FAULT',
        reason: `plugin ${plugin} could not decide ${name}: ${messageOf(error)}`,
      }
    throw kernelError('HOOK_FAULT', `plugin ${plugin} failed in ${name}: ${messageOf(error)}`, {
      cause: error,
    })
  }
}

/** Anything with a `then`: promises of other realms and libraries too. */
export function isPromise(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function'
}

function newTapableHook(definition: HookDefinition): CompiledHook {
  const names = definition.parameters.map((_, index) => `argument${index}`)
  const isSync = definition.mode === 'sync'
  let hook: unknown
  switch (definition.kind) {
    case 'notify':
      hook = isSync ? new SyncHook(names as never) : new AsyncParallelHook(names as never)
      break
    case 'veto':
      hook = isSync ? new SyncBailHook(names as never) : new AsyncSeriesBailHook(names as never)
      break
    case 'transform':
      hook = isSync ? new SyncWaterfallHook(names as never) : new AsyncSeriesWaterfallHook(names as never)
      break
    case 'collect': {
      const withSink = ['sink', ...names] as never
      hook = isSync ? new SyncHook(withSink) : new AsyncParallelHook(withSink)
      break
    }
  }
  return hook as CompiledHook
}
