/** What a planted bug is, and how one is planted. */
import type { RunOptions } from './simulation.ts'

export interface PlantedBug {
  /** For the command line. */
  readonly key: string
  readonly name: string
  /** The rule that is taken out. */
  readonly rule: string
  /** The trouble in which it shows. */
  readonly profile: Pick<RunOptions, 'kinds' | 'faultPauseMs' | 'faultsAtOnce' | 'offlineSeconds' | 'shape'>
  /** What is lost is waited for without end: nobody gives a wrong answer. Default: false. */
  readonly showsAsHang?: boolean
  /** Within how many seeds it must be found. */
  readonly seedsToFind: number
  /** Plants it; `remove` takes it out again. */
  plant(): { readonly options: Pick<RunOptions, 'roles'>; remove(): void }
}

/** Replaces a method of a class until `remove`. */
export function replaceMethod(
  target: object,
  name: string,
  make: (original: (...parameters: unknown[]) => unknown) => (this: never, ...parameters: never[]) => unknown,
): () => void {
  const original = Reflect.get(target, name) as (...parameters: unknown[]) => unknown
  Reflect.set(target, name, make(original))
  return () => void Reflect.set(target, name, original)
}
