/**
 * The cluster key of a host: `auth_digest.key`. Refuses a file that others can read, as ssh does; writes it in
 * one step; sees at each use whether another process of the host has replaced it.
 * Format: docs/formats/authentication.md; guide: Password-based Authentication.
 */
import fs from 'node:fs'
import path from 'node:path'
import { CairnError, codeOf } from '../../base/errors.ts'
import { formatKeyRing, type KeyRing, type KeyStore, parseKeyRing } from '../key-ring.ts'
import type { Logger } from '../logger.ts'
import { writeFileDurably } from './durable-file.ts'

export const KEY_FILE = 'auth_digest.key'
const FILE_BYTES_MAX = 4096
const OTHERS = 0o077

interface Loaded {
  readonly ring: KeyRing
  /** Of the file it came from. */
  readonly stamp: string
}

export class FileKeyStore implements KeyStore {
  readonly file: string
  readonly #cluster: string
  readonly #logger: Logger
  readonly #callbacks = new Set<() => void>()
  #loaded: Loaded | null = null
  #warned = false

  /** `cluster`: its name, for messages. */
  constructor(file: string, cluster: string, logger: Logger) {
    this.file = file
    this.#cluster = cluster
    this.#logger = logger
  }

  current(): KeyRing {
    const known = this.#loaded
    const loaded = known === null ? this.#load(null) : this.#loadAgain(known)
    this.#loaded = loaded
    if (known !== null && loaded.ring !== known.ring) this.#changed()
    return loaded.ring
  }

  replace(ring: KeyRing): void {
    if (ring === this.#loaded?.ring) return
    let stamp = this.#loaded?.stamp ?? ''
    try {
      writeKeyFile(this.file, ring)
      stamp = stampOf(fs.statSync(this.file))
    } catch (error) {
      // Goes on with it in memory; after a restart the other version is valid, or auth-node helps.
      this.#logger.error('the cluster key was replaced and cannot be written', {
        file: this.file,
        code: codeOf(error),
      })
    }
    this.#loaded = { ring, stamp }
    this.#changed()
  }

  onChange(callback: () => void): () => void {
    this.#callbacks.add(callback)
    return () => this.#callbacks.delete(callback)
  }

  #changed(): void {
    for (const callback of this.#callbacks) callback()
  }

  /** A process that runs goes on with the key it has when the file became unusable. */
  #loadAgain(known: Loaded): Loaded {
    try {
      const loaded = this.#load(known)
      this.#warned = false
      return loaded
    } catch (error) {
      if (!this.#warned)
        this.#logger.warn('the cluster key cannot be read again', { reason: (error as Error).message })
      this.#warned = true
      return known
    }
  }

  #load(known: Loaded | null): Loaded {
    let status: fs.Stats
    try {
      status = fs.statSync(this.file)
    } catch (error) {
      throw this.#missing(error)
    }
    const stamp = stampOf(status)
    if (known?.stamp === stamp) return known
    const mode = status.mode & 0o777
    if ((mode & OTHERS) !== 0)
      throw new CairnError(
        'KEY_UNPROTECTED',
        `the cluster key ${this.file} can be read or changed by others (mode 0${mode.toString(8)})`,
        {
          next: `protect it with: chmod 600 ${this.file}; if others may have read it, replace it with: cairn -c ${this.#cluster} passwd --rotate-key`,
        },
      )
    const userId = process.getuid?.() ?? 0
    if (status.uid !== 0 && status.uid !== userId)
      throw new CairnError('KEY_UNPROTECTED', `the cluster key ${this.file} belongs to user ${status.uid}`, {
        next: `give it to the user of this process: chown ${userId} ${this.file}`,
      })
    try {
      if (status.size > FILE_BYTES_MAX) throw new CairnError('BAD_CONFIG', 'is too long')
      return { ring: parseKeyRing(fs.readFileSync(this.file, 'utf8')), stamp }
    } catch (error) {
      if (!(error instanceof CairnError)) throw this.#missing(error)
      throw new CairnError('BAD_CONFIG', `the cluster key ${this.file} ${error.message}`, {
        next: `get it again with: cairn -c ${this.#cluster} auth-node`,
        cause: error,
      })
    }
  }

  #missing(error: unknown): CairnError {
    const code = codeOf(error)
    const isAbsent = code === 'ENOENT' || code === 'ENOTDIR'
    const reason = isAbsent ? 'is not there' : `cannot be read (${code})`
    return new CairnError(
      'KEY_MISSING',
      `this host is not authenticated in cluster '${this.#cluster}': ${this.file} ${reason}`,
      {
        next: `prove the cluster's password once on this host: cairn -c ${this.#cluster} auth-node`,
        cause: error,
      },
    )
  }
}

/** In one step: whoever reads sees the old file or the new one, and only root or the owner. */
export function writeKeyFile(file: string, ring: KeyRing): void {
  fs.mkdirSync(path.dirname(file), { recursive: true })
  writeFileDurably(file, formatKeyRing(ring), 0o600)
}

function stampOf(status: fs.Stats): string {
  return `${status.ino} ${status.size} ${status.mtimeMs} ${status.ctimeMs} ${status.mode} ${status.uid}`
}
