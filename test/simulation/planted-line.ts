/**
 * A rule taken out where it stands: a line of the production code that is another one when the module is loaded. What
 * no method or handler can be replaced for (private ones, functions of a module) is planted like this; the code itself
 * knows nothing. Loaded into a process of its own by `plant-line.ts`.
 */
import type { PlantedBug } from './planted.ts'

export interface PlantedLine {
  /** For the command line. */
  readonly key: string
  readonly name: string
  /** The rule that is taken out. */
  readonly rule: string
  /** Below `core`. */
  readonly file: string
  /** Stands there exactly once, or the process ends: whoever changed it says where the rule is now. */
  readonly line: string
  readonly becomes: string
  readonly found: FoundBySimulation | FoundByTest
}

/** The trouble in which it shows, and within how many seeds. */
export type FoundBySimulation = Pick<PlantedBug, 'profile' | 'seedsToFind' | 'showsAsHang'>

/** Why the simulation does not find it, and which scenario fails instead. */
export interface FoundByTest {
  /** Below `core`. */
  readonly test: string
  /** Of the names of its tests: those that must fail. */
  readonly pattern: string
  readonly why: string
}

/** The line that this process has planted. */
export const LINE_VARIABLE = 'CAIRN_PLANTED_LINE'
export const LOADER_PATH = `${import.meta.dirname}/plant-line.ts`

export function isFoundBySimulation(found: PlantedLine['found']): found is FoundBySimulation {
  return 'profile' in found
}
