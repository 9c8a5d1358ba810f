/** Which errors the faults of the torture excuse. Whatever has no excuse here is a broken promise. */
import { performance } from 'node:perf_hooks'
import type { FaultName } from './faults.ts'
import type { MachineWatch } from './machine-watch.ts'
import type { Nemesis } from './nemesis.ts'

/** What a fault did may be told this much later. */
const MEMORY_MS = 60_000
/** A session that could not be renewed ends; what was under its leases fails with EIO (rules E3, L6). */
const cutsOff: readonly FaultName[] = [
  'client-kill',
  'client-stop',
  'client-isolation',
  'packet-loss',
  'slow-line',
]
/** A holder that cannot flush in time keeps its lease: the asker hears EBUSY (rule L9). */
const delaysHolders: readonly FaultName[] = [
  ...cutsOff,
  ...(['cs-kill', 'cs-kill-all', 'cs-stop', 'cs-isolation', 'cs-power-cut', 'cs-dead-disk'] as const),
  ...(['cs-wiped', 'cs-full-disk', 'cs-read-only', 'cs-hanging-disk', 'latency'] as const),
]

export class Excuses {
  readonly #nemesis: Nemesis
  readonly #machine: MachineWatch

  constructor(nemesis: Nemesis, machine: MachineWatch) {
    this.#nemesis = nemesis
    this.#machine = machine
  }

  /** What may keep a client from being served: its session ended, its process was killed. */
  wasCutOff(client: string, sinceMs: number): boolean {
    return this.#nemesis.wasStruck(cutsOff, sinceMs, client) || this.#machine.wasOverloaded(sinceMs)
  }

  /** `client`: the host that heard the code. Null: no excuse. */
  of(client: string, code: string): string | null {
    const sinceMs = performance.now() - MEMORY_MS
    switch (code) {
      case 'EIO':
      case 'NO_LEASE':
      case 'NO_SESSION':
        return this.wasCutOff(client, sinceMs) ? 'its client was cut off' : null
      case 'EBUSY':
        return this.#nemesis.wasStruck(delaysHolders, sinceMs) || this.#machine.wasOverloaded(sinceMs)
          ? 'a holder was delayed'
          : null
      case 'ENOSPC':
        return this.#nemesis.wasStruck(['cs-full-disk'], sinceMs) ? 'a disk was full' : null
      default:
        return null
    }
  }
}
