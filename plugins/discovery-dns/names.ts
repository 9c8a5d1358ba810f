/**
 * Names of clusters out of DNS answers. What a zone holds is somebody's text: everything is checked and bounded,
 * and what is left out is said, with the reason.
 */

/** As the core demands it of a cluster's name. */
const CLUSTER_NAME = /^[A-Za-z0-9_-]{1,63}$/
export const NAMES_MAX = 1000
/** Reasons that are told; the rest is counted. */
export const SKIPPED_MAX = 16
const SHOWN_LENGTH_MAX = 80

export interface Names {
  readonly clusters: readonly string[]
  /** What was left out, and why. */
  readonly skipped: readonly string[]
}

/** Gathers names, each once, and reasons for what it does not take. */
export class NameCollector {
  readonly #names = new Set<string>()
  readonly #skipped: string[] = []
  #skippedCount = 0

  add(name: string): void {
    if (!CLUSTER_NAME.test(name)) this.skip(`${quoted(name)}: not the name of a cluster`)
    else if (this.#names.size < NAMES_MAX) this.#names.add(name)
    else if (!this.#names.has(name)) this.skip(`${quoted(name)}: more than ${NAMES_MAX} names`)
  }

  skip(reason: string): void {
    this.#skippedCount += 1
    if (this.#skipped.length < SKIPPED_MAX) this.#skipped.push(reason)
  }

  result(): Names {
    const untoldCount = this.#skippedCount - this.#skipped.length
    return {
      clusters: [...this.#names],
      skipped: untoldCount === 0 ? this.#skipped : [...this.#skipped, `${untoldCount} more`],
    }
  }
}

/**
 * All formats of the guide: several records, several strings a record, several names a string with commas
 * between them. A string is whole: strings of one record are not joined, or "a" "b" would become "ab".
 */
export function namesInTextRecords(records: readonly (readonly string[])[]): Names {
  const names = new NameCollector()
  for (const string of records.flat()) {
    for (const part of string.split(',')) {
      const name = part.trim()
      if (name !== '') names.add(name)
    }
  }
  return names.result()
}

/** The cluster in the owner name of an SRV record, `_cairn._tcp.CLUSTER.DOMAIN`; undefined: some other record. */
export function clusterOfServiceName(owner: string, service: string, domain: string): string | undefined {
  const prefix = `${service}.`.toLowerCase()
  const suffix = `.${domain}`.toLowerCase()
  const lower = owner.toLowerCase()
  const hasBoth = lower.length > prefix.length + suffix.length
  if (!hasBoth || !lower.startsWith(prefix) || !lower.endsWith(suffix)) return undefined
  return owner.slice(prefix.length, owner.length - suffix.length)
}

/** Text of a stranger, fit for a message. */
export function quoted(text: string): string {
  return JSON.stringify(text.length > SHOWN_LENGTH_MAX ? `${text.slice(0, SHOWN_LENGTH_MAX)}…` : text)
}
