/**
 * Every error code that may cross the wire, with what it means. Data answers carry the place in this list:
 * new codes go to the end.
 */

export interface CodeInfo {
  readonly retryable: boolean
  readonly meaning: string
}

export const wireCodes = {
  // file system (the names of POSIX errors, so that every export maps them one to one)
  ENOENT: { retryable: false, meaning: 'no such file or directory' },
  EEXIST: { retryable: false, meaning: 'the name exists already' },
  ENOTDIR: { retryable: false, meaning: 'not a directory' },
  EISDIR: { retryable: false, meaning: 'is a directory' },
  ENOTEMPTY: { retryable: false, meaning: 'directory is not empty' },
  ENAMETOOLONG: { retryable: false, meaning: 'name or path too long' },
  EINVAL: { retryable: false, meaning: 'invalid argument' },
  EMLINK: { retryable: false, meaning: 'too many links' },
  ENOSPC: { retryable: false, meaning: 'no space for another replica' },
  EFBIG: { retryable: false, meaning: 'file too large' },
  EPERM: { retryable: false, meaning: 'operation not permitted' },
  EACCES: { retryable: false, meaning: 'permission denied' },
  ENODATA: { retryable: false, meaning: 'no such extended attribute' },
  E2BIG: { retryable: false, meaning: 'extended attributes too large' },
  ESTALE: { retryable: false, meaning: 'the inode no longer exists' },
  EBUSY: { retryable: false, meaning: 'in use by another client that did not give it up in time' },
  EIO: { retryable: false, meaning: 'data could not be read, or acknowledged data was lost' },
  EINTR: { retryable: false, meaning: 'cancelled by the caller' },
  ETIMEDOUT: { retryable: false, meaning: 'hold_timeout passed' },
  // sessions, leases, epochs
  NO_SESSION: { retryable: false, meaning: 'the session has expired or never existed: open a new one' },
  NO_LEASE: { retryable: false, meaning: 'the lease has ended (rule E3)' },
  NOT_MASTER: { retryable: true, meaning: 'this metadata server is not the master' },
  STARTING: { retryable: true, meaning: 'the server is loading its state' },
  TRY_AGAIN: { retryable: true, meaning: 'a reconfiguration is under way: ask again after the given time' },
  // chunk servers
  WRONG_VERSION: { retryable: false, meaning: 'other version than the replica has: locate again (rule E4)' },
  NOT_IN_SYNC: { retryable: false, meaning: 'the replica may not serve this (rule E7)' },
  STALE_LEASE: { retryable: false, meaning: 'a higher lease number was seen (rule E3)' },
  NO_REPLICA: { retryable: false, meaning: 'no record of this replica (rule E12)' },
  WRONG_INCARNATION: { retryable: false, meaning: 'the server restarted since those writes (rule F6)' },
  BAD_CHECKSUM: { retryable: false, meaning: 'the page does not verify on this replica' },
  LOST_PAGE: { retryable: false, meaning: 'no replica can supply the page; a full write heals it (rule J7)' },
  FRAME_CHECKSUM: { retryable: false, meaning: 'the bytes sent do not match their checksum (rule P5)' },
  DISK_FAILED: { retryable: false, meaning: 'the disk of the chunk server gave an error' },
  DISK_FULL: { retryable: false, meaning: 'the disk of the chunk server is full' },
  // connections
  DISCONNECTED: { retryable: true, meaning: 'the connection broke; the outcome is unknown' },
  TIMED_OUT: { retryable: true, meaning: 'no answer in time; the outcome is unknown' },
  OVERLOADED: { retryable: true, meaning: 'a bounded queue is full' },
  BAD_MESSAGE: { retryable: false, meaning: 'the message does not have the form it must have' },
  UNKNOWN_METHOD: { retryable: false, meaning: 'the peer does not know this method' },
  WRONG_CLUSTER: { retryable: false, meaning: 'the peer belongs to another cluster' },
  WRONG_PROTOCOL: { retryable: false, meaning: 'no common protocol version' },
  REFUSED: { retryable: false, meaning: 'refused: busy, would lose data, or not permitted' },
  NOT_FOUND: { retryable: false, meaning: 'no such object' },
  INTERNAL: { retryable: false, meaning: 'a bug in the peer; see its log' },
  // key-value store
  COMPACTED: { retryable: false, meaning: 'the history no longer reaches this revision: read again' },
  TOO_LARGE: { retryable: false, meaning: 'a key, value or transaction is larger than allowed' },
  QUOTA: { retryable: false, meaning: 'a configured bound of the key-value store is reached' },
  // authentication
  KEY_MISSING: { retryable: false, meaning: 'the host has no cluster key: run cairn auth-node there' },
  WRONG_KEY: { retryable: false, meaning: 'the proof of the cluster key does not verify' },
  KEY_RETIRED: { retryable: false, meaning: 'the two sides have no version of the cluster key in common' },
  WRONG_PASSWORD: { retryable: false, meaning: 'not the password of the cluster' },
  TOO_MANY_ATTEMPTS: { retryable: false, meaning: 'too many failed attempts: wait' },
  // updates
  FEATURE_LEVEL: { retryable: false, meaning: 'not all metadata servers understand this yet: update them' },
  // snapshots
  HAS_OVERLAY: { retryable: false, meaning: 'an overlay on this server reads through the replica (rule S3)' },
} as const satisfies Record<string, CodeInfo>

/** A server refuses for good: asking it again changes nothing. */
export const finalRefusals: readonly string[] = [
  'WRONG_CLUSTER',
  'WRONG_PROTOCOL',
  'KEY_MISSING',
  'KEY_RETIRED',
  'WRONG_KEY',
]

export type WireCode = keyof typeof wireCodes

export function isWireCode(code: string): code is WireCode {
  return Object.hasOwn(wireCodes, code)
}
