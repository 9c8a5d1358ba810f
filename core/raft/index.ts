/** The public face of consensus: everything a driver, a transport and a log store need. */
export {
  type Configuration,
  type ConfigurationChange,
  decodeConfiguration,
  emptyConfiguration,
} from './configuration.ts'
export type { Accepted, RaftErrorCode, Refusal, RefusalCode } from './errors.ts'
export { entrySizeBytes, type LogStorage, TrailingLog } from './log.ts'
export { parseMessage } from './message-format.ts'
export { RaftNode, type RaftNodeParts } from './node.ts'
export { defaultRaftOptions, leaseTicks, type RaftFaults, type RaftOptions } from './options.ts'
export type { MemberProgress, RaftRandom, RaftStatus } from './state.ts'
export {
  type Entry,
  type EntryKind,
  type HardState,
  initialHardState,
  type MemberId,
  type Message,
  nobody,
  type ReadState,
  type Ready,
  type Role,
  type Snapshot,
} from './types.ts'
