/** Every bound and deadline of the client, in one place. */
import { assert } from '../../base/assert.ts'
import { CHUNK_SIZE_BYTES, DATA_PAYLOAD_BYTES_MAX, MIB } from '../../base/units.ts'

/** Mutations sent and unanswered in one session; the server keeps as many answers. */
export const MUTATIONS_IN_FLIGHT_MAX = 64
/** Other calls to the master in flight (the wire allows 1,024 with the mutations). */
export const CALLS_IN_FLIGHT_MAX = 512
/** Calls waiting or in flight; beyond it a call fails with OVERLOADED. */
export const CALLS_MAX = 65_536
/** One call may wait in the server for a recall or a reconfiguration; a dead link is noticed by renewals. */
export const CALL_TIMEOUT_MS = 60_000

/** Data requests in flight on one connection; the rest waits here. A chunk server reads 256 at a time. */
export const REQUESTS_IN_FLIGHT_PER_SERVER_MAX = 256
export const REQUESTS_WAITING_PER_SERVER_MAX = 65_536
export const SERVERS_MAX = 16_384
export const CONNECT_TIMEOUT_MS = 2000
export const RECONNECT_BACKOFF_MS_MIN = 100
export const RECONNECT_BACKOFF_MS_MAX = 2000
export const CONNECTION_IDLE_MS = 60_000
/** The wire's own time-out of a data request; the client's deadlines below come long before. */
export const REQUEST_TIMEOUT_MS = 600_000

export const WRITE_DEADLINE_MS = 5000
/** A joiner must not hold up writers for long (rule J6). */
export const JOINER_DEADLINE_MS = 3000
/** A sync of much data takes longer than a write into the page cache. */
export const FLUSH_DEADLINE_MS = 15_000
export const JOINER_FLUSH_DEADLINE_MS = 10_000
export const READ_DEADLINE_MS = 3000
/** How often deadlines are looked at. */
export const SWEEP_INTERVAL_MS = 250

export const HOLD_BACKOFF_MS_MIN = 50
export const HOLD_BACKOFF_MS_MAX = 1000
/** A member that says "wrong version" although the master confirms the version this often is reported. */
export const SAME_VERSION_COUNT_MAX = 3
/** Repeats of one piece to one member on the same connection after FRAME_CHECKSUM. */
export const FRAME_RETRY_COUNT_MAX = 3
/** Rounds through all in-sync members before a page that verifies nowhere is an error. */
export const BAD_READ_ROUNDS_MAX = 3

export const IN_FLIGHT_BYTES_DEFAULT = 64 * MIB
/** Copies kept for cancelled writes that must still end (rule E11); beyond it a cancel has to wait. */
export const CANCELLED_BYTES_MAX = 64 * MIB
/** Unfinished operations on one file. */
export const OPERATIONS_PER_FILE_MAX = 65_536

/** Rule L8. */
export const INTENTS_PER_LEASE_MAX = 1024
/** How many of the coldest intents are given back at once when the bound is near. */
export const INTENTS_RETURNED_AT_ONCE = 64
export const INDEXES_PER_CALL_MAX = 64
export const INTENTS_PER_CLEAR_MAX = 1024
export const LOCATIONS_PER_FILE_MAX = 16_384

/** A lease nobody wrote under for this long is given back. */
export const LEASE_IDLE_MS = 5000
/**
 * The same while many leases are held. A file that was closed keeps its lease as long as an open one: who
 * wants it recalls it, and one that is deleted soon costs no flush.
 */
export const LEASE_IDLE_CROWDED_MS = 1000
/** Each costs syncs on all members when something was written; together they share the commits. */
export const LEASE_RETURNS_IN_PARALLEL_MAX = 256
/** How long the flush before an idle lease goes back may take: writes to all its chunks wait meanwhile (rule A3). */
export const RETURN_FLUSH_MS_MAX = 2000
/** The same before intents go back alone: writes to those chunks wait, and a member may have to leave first. */
export const SURRENDER_FLUSH_MS_MAX = 2 * FLUSH_DEADLINE_MS
/** In one message: as many as the schema of `lease.return` allows. */
export const LEASES_PER_RETURN_MAX = 1024
/** Leases held; above it idle ones are returned at once. */
export const LEASES_MAX = 4096

/**
 * How far the modification time in the quorum may lag behind the last flushed write: a tick of the kernel's
 * coarse clock, which is the granularity that local file systems give to time stamps.
 */
export const TIMES_LAG_MS_MAX = 10

export const READ_AHEAD_BLOCK_BYTES = MIB
export const READ_AHEAD_BLOCKS_PER_FILE_MAX = 8
export const READ_AHEAD_BLOCKS_MAX = 128
/** Larger reads are their own read-ahead. */
export const READ_AHEAD_REQUEST_BYTES_MAX = MIB / 2

/** Watches of the key-value store; each occupies one call in flight, and the server allows twice as many. */
export const WATCHES_MAX = 128
/** A watch without news is asked for again after this, well before the call would time out. */
export const WATCH_WAIT_MS = 20_000
/** A listing whose first page grew too old for the others begins again this often. */
export const LIST_ATTEMPTS_MAX = 10
export const LIST_PAGE_ENTRIES = 1024

export const STREAM_BLOCK_BYTES = MIB
export const STREAM_BLOCKS_IN_FLIGHT = 4
export const MEMBERS_MAX = 31
export const FILE_SIZE_BYTES_MAX = 2 ** 52

assert(READ_AHEAD_BLOCK_BYTES <= DATA_PAYLOAD_BYTES_MAX, 'a read-ahead block is one data request')
assert(CHUNK_SIZE_BYTES % DATA_PAYLOAD_BYTES_MAX === 0, 'pieces never cross a chunk')
assert(WATCHES_MAX * 2 < CALLS_IN_FLIGHT_MAX, 'watches leave room for other calls')
assert(WATCH_WAIT_MS * 2 < CALL_TIMEOUT_MS, 'a watch is answered before it times out')
assert(INTENTS_RETURNED_AT_ONCE < INTENTS_PER_LEASE_MAX, 'some intents stay')
