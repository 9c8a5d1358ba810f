/**
 * Hello, welcome and refusal: contents and decisions, no input or output. The dialling side says which
 * protocol versions it speaks; the accepting side picks the highest common one or refuses.
 */
import { type Static, Type } from '@sinclair/typebox'
import { CairnError } from '../base/errors.ts'
import { isWireCode, wireCodes } from './codes.ts'
import { decodeMessage, encodeMessage, shapeFault } from './codec.ts'
import { UInt } from './messages/method.ts'
import { masterHint, NotMasterError } from './not-master.ts'
import type { Identity, RemoteIdentity } from './types.ts'

export const PROTOCOL_VERSIONS: readonly number[] = [1]
/** Feature bit: this side takes part in the authentication (docs/formats/authentication.md). */
export const FEATURE_AUTHENTICATION = 1
/** Feature bit: this side takes bundles (bundle.ts). */
export const FEATURE_BUNDLES = 2

const METADATA_ROLE = 'mds'

const Side = {
  features: Type.Integer({ minimum: 0, maximum: 0x7fff_ffff }),
  role: Type.String({ maxLength: 32 }),
  clusterName: Type.String({ maxLength: 255 }),
  clusterUuid: Type.String({ maxLength: 64 }),
  generation: Type.Optional(UInt),
  session: UInt,
  name: Type.String({ maxLength: 512 }),
  level: Type.Optional(UInt),
  member: Type.Optional(UInt),
}
const Hello = Type.Object({ versions: Type.Array(UInt, { maxItems: 64 }), ...Side })
const Welcome = Type.Object({ version: UInt, ...Side })
const Refusal = Type.Object({
  code: Type.String({ maxLength: 64 }),
  message: Type.String({ maxLength: 1024 }),
  next: Type.Optional(Type.String({ maxLength: 1024 })),
  /** NOT_MASTER: base address of the master. */
  master: Type.Optional(Type.Object({ host: Type.String({ maxLength: 255 }), port: UInt })),
})

export interface LocalSide {
  readonly identity: Identity
  readonly versions: readonly number[]
  readonly features: number
}

export function encodeHello(local: LocalSide): Buffer {
  return encodeMessage({ versions: local.versions, features: local.features, ...plain(local.identity) })
}

export function encodeWelcome(local: LocalSide, version: number): Buffer {
  return encodeMessage({ version, features: local.features, ...plain(local.identity) })
}

export function encodeRefusal(error: CairnError): Buffer {
  const { code, message, next } = error
  const master = masterHint(error) ?? undefined
  return encodeMessage({ code, message: message.slice(0, 1000), next: next?.slice(0, 1000), master })
}

/** What the accepting side makes of a hello. Throws CairnError: refuse with it. */
export function acceptHello(borrowedMeta: Buffer, local: LocalSide): RemoteIdentity {
  const hello = decodeMessage(borrowedMeta)
  const fault = shapeFault(Hello, hello)
  if (fault !== null) throw new CairnError('BAD_MESSAGE', `hello ${fault}`)
  const { versions, features, ...identity } = hello as Static<typeof Hello>
  const version = Math.max(0, ...versions.filter((offered) => local.versions.includes(offered)))
  if (version === 0) {
    const message = `no common protocol version: offered ${versions.join(', ')}, known ${local.versions.join(', ')}`
    throw new CairnError('WRONG_PROTOCOL', message, { next: 'Update the older side.' })
  }
  checkCluster(identity, local.identity)
  if (local.identity.role === METADATA_ROLE) checkGeneration(local.identity, identity)
  return { ...plain(identity), protocolVersion: version, features: features & local.features }
}

/** What the dialling side makes of a welcome. Throws CairnError: close with it. */
export function acceptWelcome(borrowedMeta: Buffer, local: LocalSide): RemoteIdentity {
  const welcome = decodeMessage(borrowedMeta)
  const fault = shapeFault(Welcome, welcome)
  if (fault !== null) throw new CairnError('BAD_MESSAGE', `welcome ${fault}`)
  const { version, features, ...identity } = welcome as Static<typeof Welcome>
  if (!local.versions.includes(version))
    throw new CairnError(
      'WRONG_PROTOCOL',
      `the peer picked protocol version ${version}, which was not offered`,
    )
  checkCluster(identity, local.identity)
  if (identity.role === METADATA_ROLE) checkGeneration(identity, local.identity)
  return { ...plain(identity), protocolVersion: version, features: features & local.features }
}

export function decodeRefusal(borrowedMeta: Buffer): CairnError {
  const refusal = decodeMessage(borrowedMeta)
  const fault = shapeFault(Refusal, refusal)
  if (fault !== null) return new CairnError('BAD_MESSAGE', `refusal ${fault}`)
  const { code, message, next, master } = refusal as Static<typeof Refusal>
  if (code === 'NOT_MASTER') return new NotMasterError(message, master ?? null)
  if (!isWireCode(code)) return new CairnError('REFUSED', `${code}: ${message}`)
  const { retryable } = wireCodes[code]
  return new CairnError(code, message, next === undefined ? { retryable } : { retryable, next })
}

function checkCluster(remote: Identity, local: Identity): void {
  if (differ(remote.clusterName, local.clusterName))
    throw new CairnError(
      'WRONG_CLUSTER',
      `the peer belongs to cluster ${remote.clusterName}, this is ${local.clusterName}`,
    )
  if (differ(remote.clusterUuid, local.clusterUuid))
    throw new CairnError(
      'WRONG_CLUSTER',
      `the peer belongs to another cluster with the name ${local.clusterName}`,
    )
}

/**
 * Metadata servers of a quorum that was replaced serve nobody who has met the newer one. Among metadata servers
 * this is decided after the authentication: whoever is older must be sure of it (quorum/transport.ts).
 */
function checkGeneration(metadataServer: Identity, other: Identity): void {
  const { generation = 0 } = other
  if (other.role === METADATA_ROLE || metadataServer.generation === undefined) return
  if (metadataServer.generation >= generation) return
  throw new CairnError(
    'WRONG_CLUSTER',
    `this metadata server belongs to a quorum of ${metadataServer.clusterName} that was replaced by another`,
    { next: 'stop it; on its host: cairn make-mds --rebuild -f -r DIR' },
  )
}

function differ(one: string, other: string): boolean {
  return one !== '' && other !== '' && one !== other
}

function plain(identity: Identity): Identity {
  const { role, clusterName, clusterUuid, generation, session, name, level, member } = identity
  return {
    ...{ role, clusterName, clusterUuid, session, name },
    ...(generation === undefined ? {} : { generation }),
    ...(level === undefined ? {} : { level }),
    ...(member === undefined ? {} : { member }),
  }
}

const Failure = Type.Object({
  code: Type.String({ maxLength: 64 }),
  message: Type.String({ maxLength: 4096 }),
  retryable: Type.Boolean(),
  next: Type.Optional(Type.String({ maxLength: 4096 })),
})

/** The error frame of a call. Never throws. */
export function decodeError(borrowedMeta: Buffer): CairnError {
  try {
    const failure = decodeMessage(borrowedMeta)
    const fault = shapeFault(Failure, failure)
    if (fault !== null) return new CairnError('BAD_MESSAGE', `error answer ${fault}`)
    const { code, message, retryable, next } = failure as Static<typeof Failure>
    if (!isWireCode(code)) return new CairnError('INTERNAL', `${code}: ${message}`)
    return new CairnError(code, message, {
      retryable,
      isAnswer: true,
      ...(next === undefined ? {} : { next }),
    })
  } catch (error) {
    return new CairnError('BAD_MESSAGE', 'error answer cannot be decoded', { cause: error })
  }
}
