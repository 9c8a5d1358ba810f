/**
 * What the quorum remembers of password and keys: one replicated value, in which everything secret is sealed
 * under the cluster key, so that logs, rows and backups give nothing away. docs/formats/authentication.md.
 */
import { type Static, Type } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { CairnError } from '../../base/errors.ts'
import type { KeyRing } from '../../platform/key-ring.ts'
import type { PasswordVerifier } from '../../platform/password.ts'
import type { Random } from '../../platform/random.ts'
import {
  keyFor,
  lengthPrefixed,
  seal,
  unseal,
  unsigned32,
  updatePurpose,
} from '../../wire/authentication/sealing.ts'
import { UInt } from '../../wire/messages/method.ts'
import { AUTHENTICATION_KEY, AUTHENTICATION_REVISION_KEY } from '../chunks/administration.ts'

const Base64 = Type.String({ maxLength: 4096, pattern: '^[A-Za-z0-9+/=]*$' })

const Form = Type.Object({
  /** Newest version of the cluster key; the verifier is sealed under it. */
  version: UInt,
  /** Oldest version that is accepted. */
  oldest: UInt,
  verifier: Base64,
  /** While two versions are accepted: the newest one sealed under the oldest. */
  update: Type.Optional(Base64),
  /** Log time at which the oldest version ends (rule L11). */
  retireAtMs: Type.Optional(UInt),
})
export type AuthenticationRecord = Static<typeof Form>

export interface StoredAuthentication {
  readonly revision: number
  /** Null: the cluster was made before there were passwords. */
  readonly record: AuthenticationRecord | null
}

/** Throws STATE_FORMAT. */
export function readAuthentication(config: {
  get(key: string): string | number | undefined
}): StoredAuthentication {
  const value = config.get(AUTHENTICATION_KEY)
  const revision = Number(config.get(AUTHENTICATION_REVISION_KEY) ?? 0)
  if (value === undefined) return { revision, record: null }
  let record: unknown
  try {
    record = JSON.parse(String(value))
  } catch (error) {
    throw new CairnError('STATE_FORMAT', 'the authentication record cannot be read', { cause: error })
  }
  if (!Value.Check(Form, record))
    throw new CairnError('STATE_FORMAT', 'the authentication record has another form')
  return { revision, record }
}

export function sealVerifier(
  verifier: PasswordVerifier,
  version: number,
  ring: KeyRing,
  random: Random,
): string {
  const plain = Buffer.from(JSON.stringify([verifier.setup, verifier.record]))
  return seal(verifierKey(version, ring), verifierPurpose(ring, version), plain, random).toString('base64')
}

/** Throws WRONG_KEY, KEY_RETIRED. */
export function openVerifier(record: AuthenticationRecord, ring: KeyRing): PasswordVerifier {
  const { version, verifier } = record
  const sealed = Buffer.from(verifier, 'base64')
  const plain: unknown = JSON.parse(
    unseal(verifierKey(version, ring), verifierPurpose(ring, version), sealed).toString(),
  )
  const [setup, registration] = plain as [string, string]
  return { setup, record: registration }
}

export function sealUpdate(
  key: Buffer,
  version: number,
  under: number,
  ring: KeyRing,
  random: Random,
): string {
  const underKey = keyFor('update', keyOf(under, ring), ring.clusterUuid)
  return seal(underKey, updatePurpose(ring.clusterUuid, version, under), key, random).toString('base64')
}

/** The ring that a metadata server should have; throws KEY_RETIRED when its own is too old for that. */
export function ringOf(record: AuthenticationRecord, ring: KeyRing): KeyRing {
  const { version, oldest, update } = record
  let whole = ring
  if (ring.get(version) === undefined && update !== undefined && ring.get(oldest) !== undefined) {
    const underKey = keyFor('update', keyOf(oldest, ring), ring.clusterUuid)
    const purpose = updatePurpose(ring.clusterUuid, version, oldest)
    whole = ring.with(version, unseal(underKey, purpose, Buffer.from(update, 'base64')))
  }
  keyOf(version, whole)
  return whole.from(oldest)
}

function keyOf(version: number, ring: KeyRing): Buffer {
  const key = ring.get(version)
  if (key !== undefined) return key
  const known = ring.versions.join(' and ')
  throw new CairnError(
    'KEY_RETIRED',
    `this host has version ${known} of the cluster key, not version ${version}`,
    {
      next: 'copy auth_digest.key from another metadata server, or run cairn auth-node here',
    },
  )
}

function verifierKey(version: number, ring: KeyRing): Buffer {
  return keyFor('verifier', keyOf(version, ring), ring.clusterUuid)
}

function verifierPurpose(ring: KeyRing, version: number): Buffer {
  return Buffer.concat([
    lengthPrefixed('cairn-auth-1 verifier'),
    lengthPrefixed(ring.clusterUuid),
    unsigned32(version),
  ])
}
