/**
 * Messages and proofs of the handshake, as docs/formats/authentication.md gives them. Pure: bytes in, bytes
 * out; decides nothing. Parsers throw BAD_MESSAGE for whatever does not have exactly the form it must have.
 */
import { createHmac, timingSafeEqual } from 'node:crypto'
import { CairnError } from '../../base/errors.ts'
import { derivedKey, digest, keyFor, lengthPrefixed } from './sealing.ts'

export const AUTHENTICATION_VERSION = 1
export const NONCE_BYTES = 32
export const PROOF_BYTES = 32
const KEY_VERSION_COUNT_MAX = 8
const SEALED_KEY_BYTES = 60
const LABEL = 'cairn-auth-1'

/** How frames are protected. 2 (encryption of everything) has its place here and is not there yet. */
export const Protection = { tags: 1 } as const
/** The set of those this version knows. */
const PROTECTIONS = 1 << (Protection.tags - 1)

const MessageKind = { challenge: 1, response: 2, confirmation: 3, keys: 4 } as const

export interface Challenge {
  readonly protections: number
  readonly nonce: Buffer
  readonly keyVersions: readonly number[]
}

export interface Response {
  readonly protection: number
  readonly keyVersion: number
  readonly nonce: Buffer
  readonly proof: Buffer
}

export interface KeysMessage {
  /** Versions below are not accepted any more. */
  readonly oldest: number
  /** 0: no key comes with it. */
  readonly version: number
  readonly under: number
  readonly sealed: Buffer
}

export function kindOf(message: Buffer): keyof typeof MessageKind {
  for (const name of Object.keys(MessageKind) as (keyof typeof MessageKind)[])
    if (MessageKind[name] === message[0]) return name
  throw malformed(`message of kind ${message[0]}`)
}

export function encodeChallenge(nonce: Buffer, keyVersions: readonly number[]): Buffer {
  const bytes = Buffer.alloc(5 + NONCE_BYTES + 4 * keyVersions.length)
  bytes[0] = MessageKind.challenge
  bytes[1] = AUTHENTICATION_VERSION
  bytes.writeUInt16LE(PROTECTIONS, 2)
  nonce.copy(bytes, 4)
  bytes[4 + NONCE_BYTES] = keyVersions.length
  keyVersions.forEach((version, index) => bytes.writeUInt32LE(version, 5 + NONCE_BYTES + 4 * index))
  return bytes
}

export function parseChallenge(message: Buffer): Challenge {
  checkVersion(message)
  const count = message[4 + NONCE_BYTES] ?? 0
  if (count < 1 || count > KEY_VERSION_COUNT_MAX || message.length !== 5 + NONCE_BYTES + 4 * count)
    throw malformed('challenge')
  return {
    protections: message.readUInt16LE(2),
    nonce: Buffer.from(message.subarray(4, 4 + NONCE_BYTES)),
    keyVersions: Array.from({ length: count }, (_, index) =>
      message.readUInt32LE(5 + NONCE_BYTES + 4 * index),
    ),
  }
}

/** The highest both know. Throws WRONG_PROTOCOL. */
export function chooseProtection(protections: number): number {
  if ((protections & PROTECTIONS) !== 0) return Protection.tags
  throw new CairnError(
    'WRONG_PROTOCOL',
    `no common protection of frames: the peer knows the set ${protections}`,
    {
      next: 'Update the older side.',
    },
  )
}

const RESPONSE_BYTES = 8 + NONCE_BYTES + PROOF_BYTES

/** Everything of a response but its proof, which is about these bytes too. */
export function encodeResponseHead(protection: number, keyVersion: number, nonce: Buffer): Buffer {
  const bytes = Buffer.alloc(8 + NONCE_BYTES)
  bytes[0] = MessageKind.response
  bytes[1] = AUTHENTICATION_VERSION
  bytes.writeUInt16LE(protection, 2)
  bytes.writeUInt32LE(keyVersion, 4)
  nonce.copy(bytes, 8)
  return bytes
}

export function parseResponse(message: Buffer): Response {
  checkVersion(message)
  if (message.length !== RESPONSE_BYTES) throw malformed('response')
  return {
    protection: message.readUInt16LE(2),
    keyVersion: message.readUInt32LE(4),
    nonce: Buffer.from(message.subarray(8, 8 + NONCE_BYTES)),
    proof: Buffer.from(message.subarray(8 + NONCE_BYTES)),
  }
}

export function encodeConfirmation(proof: Buffer): Buffer {
  return Buffer.concat([Buffer.from([MessageKind.confirmation, AUTHENTICATION_VERSION, 0, 0]), proof])
}

export function parseConfirmation(message: Buffer): Buffer {
  checkVersion(message)
  if (message.length !== 4 + PROOF_BYTES || message.readUInt16LE(2) !== 0) throw malformed('confirmation')
  return Buffer.from(message.subarray(4))
}

export function encodeKeys({ oldest, version, under, sealed }: KeysMessage): Buffer {
  const head = Buffer.alloc(16)
  head[0] = MessageKind.keys
  head[1] = AUTHENTICATION_VERSION
  head.writeUInt32LE(oldest, 4)
  head.writeUInt32LE(version, 8)
  head.writeUInt32LE(under, 12)
  return Buffer.concat([head, sealed])
}

export function parseKeys(message: Buffer): KeysMessage {
  checkVersion(message)
  if (message.length < 16 || message.readUInt16LE(2) !== 0) throw malformed('keys message')
  const version = message.readUInt32LE(8)
  if (message.length !== 16 + (version === 0 ? 0 : SEALED_KEY_BYTES)) throw malformed('keys message')
  return {
    oldest: message.readUInt32LE(4),
    version,
    under: message.readUInt32LE(12),
    sealed: Buffer.from(message.subarray(16)),
  }
}

/** What both sides saw. */
export interface Transcript {
  readonly clusterUuid: string
  readonly dialRole: string
  readonly acceptRole: string
  readonly helloMeta: Buffer
  readonly welcomeMeta: Buffer
  readonly challenge: Buffer
  readonly responseHead: Buffer
}

export function transcriptDigest(transcript: Transcript): Buffer {
  return digest(
    lengthPrefixed(LABEL),
    lengthPrefixed(transcript.clusterUuid),
    lengthPrefixed(transcript.dialRole),
    lengthPrefixed(transcript.acceptRole),
    digest(transcript.helloMeta),
    digest(transcript.welcomeMeta),
    transcript.challenge,
    transcript.responseHead,
  )
}

export type SideLabel = 'dialling side' | 'accepting side'

/** `before`: the proof that this one answers. */
export function proofOf(
  side: SideLabel,
  clusterKey: Buffer,
  clusterUuid: string,
  transcript: Buffer,
  before: Buffer = Buffer.alloc(0),
): Buffer {
  return createHmac('sha256', keyFor('proof', clusterKey, clusterUuid))
    .update(lengthPrefixed(side))
    .update(transcript)
    .update(before)
    .digest()
}

export function isSameProof(one: Buffer, other: Buffer): boolean {
  return one.length === other.length && timingSafeEqual(one, other)
}

/** The key of the frames that `side` sends. */
export function frameKey(
  side: SideLabel,
  clusterKey: Buffer,
  nonceAccept: Buffer,
  nonceDial: Buffer,
  transcript: Buffer,
): Buffer {
  const info = Buffer.concat([lengthPrefixed(`${LABEL} frames of the ${side}`), transcript])
  return derivedKey(clusterKey, Buffer.concat([nonceAccept, nonceDial]), info)
}

function checkVersion(message: Buffer): void {
  if (message.length < 4) throw malformed('message')
  if (message[1] === AUTHENTICATION_VERSION) return
  throw new CairnError(
    'WRONG_PROTOCOL',
    `the peer authenticates by version ${message[1]}, this side by version ${AUTHENTICATION_VERSION}`,
    { next: 'Update the older side.' },
  )
}

function malformed(what: string): CairnError {
  return new CairnError('BAD_MESSAGE', `authentication: a malformed ${what}`)
}
