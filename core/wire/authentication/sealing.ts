/**
 * Key derivation and sealing for everything in docs/formats/authentication.md: HKDF-SHA256 and AES-256-GCM of
 * node:crypto, with labels. No primitive of our own; nonces come from the Random that is given.
 */
import { createCipheriv, createDecipheriv, createHash, hkdfSync } from 'node:crypto'
import { CairnError } from '../../base/errors.ts'
import type { Random } from '../../platform/random.ts'

const NONCE_BYTES = 12
const SEAL_TAG_BYTES = 16
const DERIVED_BYTES = 32

/** u16 length and UTF-8: joined texts can be taken apart in one way only. */
export function lengthPrefixed(value: string | Uint8Array): Buffer {
  const bytes = typeof value === 'string' ? Buffer.from(value, 'utf8') : Buffer.from(value)
  const length = Buffer.alloc(2)
  length.writeUInt16LE(bytes.length)
  return Buffer.concat([length, bytes])
}

export function unsigned32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

export function digest(...parts: readonly Uint8Array[]): Buffer {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(part)
  return hash.digest()
}

/** HKDF-SHA256, 32 bytes. */
export function derivedKey(secret: Uint8Array, salt: Uint8Array, info: Uint8Array): Buffer {
  return Buffer.from(hkdfSync('sha256', secret, salt, info, DERIVED_BYTES))
}

export type KeyUse = 'proof' | 'update' | 'verifier'

/** What a cluster key is used for has a key of its own. */
export function keyFor(use: KeyUse, clusterKey: Uint8Array, clusterUuid: string): Buffer {
  return derivedKey(clusterKey, lengthPrefixed(clusterUuid), Buffer.from(`cairn-auth-1 ${use}`))
}

/** AES-256-GCM: 12 bytes nonce, ciphertext, 16 bytes tag. `purpose` is authenticated with it. */
export function seal(key: Buffer, purpose: Uint8Array, plain: Uint8Array, random: Random): Buffer {
  const nonce = random.bytes(NONCE_BYTES)
  const cipher = createCipheriv('aes-256-gcm', key, nonce)
  cipher.setAAD(purpose)
  return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()])
}

/** Throws WRONG_KEY when it was sealed with another key, for another purpose, or was changed. */
export function unseal(key: Buffer, purpose: Uint8Array, sealed: Uint8Array): Buffer {
  const bytes = Buffer.from(sealed)
  if (bytes.length < NONCE_BYTES + SEAL_TAG_BYTES)
    throw new CairnError('WRONG_KEY', 'a sealed text is too short')
  const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, NONCE_BYTES), {
    authTagLength: SEAL_TAG_BYTES,
  })
  decipher.setAAD(purpose)
  decipher.setAuthTag(bytes.subarray(-SEAL_TAG_BYTES))
  try {
    return Buffer.concat([decipher.update(bytes.subarray(NONCE_BYTES, -SEAL_TAG_BYTES)), decipher.final()])
  } catch (error) {
    throw new CairnError('WRONG_KEY', 'a sealed text does not open with this key', { cause: error })
  }
}

/** Of a cluster key that travels, or is stored, under the one before it. */
export function updatePurpose(clusterUuid: string, version: number, under: number): Buffer {
  return Buffer.concat([
    lengthPrefixed('cairn-auth-1 update'),
    lengthPrefixed(clusterUuid),
    unsigned32(version),
    unsigned32(under),
  ])
}
