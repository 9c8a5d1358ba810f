/**
 * The cluster key in its versions: the values, the text of `auth_digest.key`, and the seam through which
 * everybody gets at them. Promises that a ring has one or two versions, and that none ever changes its key.
 * Touches no disk (node/key-file.ts does). Format: docs/formats/authentication.md.
 */
import { CairnError } from '../base/errors.ts'

export const CLUSTER_KEY_BYTES = 32
/** The one in use, and the one that is being replaced. */
const KEY_COUNT_MAX = 2
const KEY_VERSION_MAX = 0xffff_ffff
const FORMAT = 'cairn-key 1'
const TITLE = '# Cairn cluster key. Whoever can read this file is part of the cluster: keep it secret.'

/** Never changes: a new key makes a new ring. */
export class KeyRing {
  readonly clusterUuid: string
  /** By rising version. */
  readonly #keys: ReadonlyMap<number, Buffer>

  /** Throws BAD_CONFIG for what is no ring. */
  constructor(clusterUuid: string, keys: Iterable<readonly [number, Buffer]>) {
    const sorted = [...keys].sort(([one], [other]) => one - other)
    this.clusterUuid = clusterUuid
    this.#keys = new Map(sorted)
    const isSound = sorted.every(
      ([version, key]) =>
        Number.isInteger(version) &&
        version >= 1 &&
        version <= KEY_VERSION_MAX &&
        key.length === CLUSTER_KEY_BYTES,
    )
    if (!isSound || sorted.length !== this.#keys.size || sorted.length < 1 || sorted.length > KEY_COUNT_MAX)
      throw new CairnError('BAD_CONFIG', 'not one or two versions of a cluster key')
    if (!/^[0-9a-f]{32}$/.test(clusterUuid)) throw new CairnError('BAD_CONFIG', 'not the UUID of a cluster')
  }

  /** By rising version. */
  get versions(): number[] {
    return [...this.#keys.keys()]
  }

  get oldest(): number {
    return Math.min(...this.#keys.keys())
  }

  get newest(): number {
    return Math.max(...this.#keys.keys())
  }

  get(version: number): Buffer | undefined {
    return this.#keys.get(version)
  }

  /** Also has `key`; the oldest version makes room. The same ring when it has that version, or newer ones only. */
  with(version: number, key: Buffer): KeyRing {
    if (this.#keys.has(version) || version < this.oldest) return this
    const all = [...this.#keys, [version, key] as const].sort(([one], [other]) => one - other)
    return new KeyRing(this.clusterUuid, all.slice(-KEY_COUNT_MAX))
  }

  /** Without versions below `oldest`; the same ring when nothing would be left. */
  from(oldest: number): KeyRing {
    const kept = [...this.#keys].filter(([version]) => version >= oldest)
    return kept.length === 0 || kept.length === this.#keys.size ? this : new KeyRing(this.clusterUuid, kept)
  }
}

/** Where a process has the cluster key from. */
export interface KeyStore {
  /** Throws CairnError: KEY_MISSING, KEY_UNPROTECTED, BAD_CONFIG. */
  current(): KeyRing
  /** Keeps what is different from `current`, durably if it can; never throws. */
  replace(ring: KeyRing): void
  /** After the ring changed. Returns how to unsubscribe. */
  onChange(callback: () => void): () => void
}

/** For processes without a file of their own, and for tests. */
export class MemoryKeyStore implements KeyStore {
  readonly #callbacks = new Set<() => void>()
  #ring: KeyRing

  constructor(ring: KeyRing) {
    this.#ring = ring
  }

  current(): KeyRing {
    return this.#ring
  }

  replace(ring: KeyRing): void {
    if (ring === this.#ring) return
    this.#ring = ring
    for (const callback of this.#callbacks) callback()
  }

  onChange(callback: () => void): () => void {
    this.#callbacks.add(callback)
    return () => this.#callbacks.delete(callback)
  }
}

export function formatKeyRing(ring: KeyRing): string {
  const keys = ring.versions.map((version) => `key ${version} ${ring.get(version)?.toString('hex') ?? ''}`)
  return [TITLE, FORMAT, `cluster ${ring.clusterUuid}`, ...keys, ''].join('\n')
}

/** Throws BAD_CONFIG; never repeats what the text says, because it is a secret. */
export function parseKeyRing(text: string): KeyRing {
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
  const cluster = /^cluster ([0-9a-f]{32})$/.exec(lines[1] ?? '')?.[1]
  if (lines[0] !== FORMAT || cluster === undefined)
    throw new CairnError('BAD_CONFIG', 'does not begin as a cluster key of format 1')
  const keys = lines.slice(2).map((line): [number, Buffer] => {
    const match = /^key (\d{1,10}) ([0-9a-f]{64})$/.exec(line)
    if (match === null) throw new CairnError('BAD_CONFIG', 'has a line that is no key')
    return [Number(match[1]), Buffer.from(match[2] ?? '', 'hex')]
  })
  return new KeyRing(cluster, keys)
}
