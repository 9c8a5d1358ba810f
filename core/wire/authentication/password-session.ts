/** What both sides of a password exchange make of its session key: one key for each use, bound to what was said. */
import type { Random } from '../../platform/random.ts'
import { derivedKey, digest, lengthPrefixed, seal, unseal } from './sealing.ts'

export type PasswordUse = 'keys' | 'registration request' | 'registration response' | 'registration record'

export interface PasswordTranscript {
  readonly request: string
  readonly response: string
  readonly finish: string
}

export class PasswordSession {
  readonly #sessionKey: Buffer
  readonly #salt: Buffer
  readonly #clusterUuid: string
  readonly #random: Random

  constructor(sessionKey: Buffer, transcript: PasswordTranscript, clusterUuid: string, random: Random) {
    const { request, response, finish } = transcript
    this.#sessionKey = sessionKey
    this.#salt = digest(lengthPrefixed(request), lengthPrefixed(response), lengthPrefixed(finish))
    this.#clusterUuid = clusterUuid
    this.#random = random
  }

  seal(use: PasswordUse, plain: string): Buffer {
    return seal(this.#key(use), Buffer.from(use), Buffer.from(plain), this.#random)
  }

  /** Throws WRONG_KEY. */
  unseal(use: PasswordUse, sealed: Uint8Array): string {
    return unseal(this.#key(use), Buffer.from(use), sealed).toString('utf8')
  }

  #key(use: PasswordUse): Buffer {
    const info = Buffer.concat([lengthPrefixed(`cairn-auth-1 ${use}`), lengthPrefixed(this.#clusterUuid)])
    return derivedKey(this.#sessionKey, this.#salt, info)
  }
}
