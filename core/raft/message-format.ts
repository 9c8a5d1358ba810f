/**
 * Checks a decoded message before it is believed: every field there, of its type and range, entries in order.
 * Input from the network is never asserted; whatever is wrong is RAFT_BAD_MESSAGE. It builds a new object, so
 * unknown fields do not come in. The entries' data are the buffers that were given: hand over owned ones.
 */
import { checkedConfiguration, decodeConfiguration, isMemberId } from './configuration.ts'
import { raftError } from './errors.ts'
import { defaultRaftOptions, entryOverheadBytes } from './options.ts'
import type { Entry, EntryKind, Message, Snapshot, Transfer } from './types.ts'

type Fields = Readonly<Record<string, unknown>>

/** More cannot come out of an honest sender: the smallest entries in the largest message. */
const entryCountMax = Math.ceil(defaultRaftOptions.messageBytesMax / entryOverheadBytes) + 1

const entryKinds: ReadonlySet<unknown> = new Set<EntryKind>(['command', 'configuration', 'empty'])

/** Throws RAFT_BAD_MESSAGE. */
export function parseMessage(value: unknown): Message {
  const fields = fieldsOf(value, 'a message')
  const { type, from, to } = fields
  if (!isMemberId(from) || !isMemberId(to)) throw bad('a message names its sender and its receiver')
  const envelope = { from, to, term: positive(fields, 'term') }
  switch (type) {
    case 'pre-vote':
    case 'vote': {
      const transfer = fields['transfer'] === null ? null : parseTransfer(fields['transfer'])
      const lastTerm = count(fields, 'lastTerm')
      return { type, ...envelope, lastIndex: count(fields, 'lastIndex'), lastTerm, transfer }
    }
    case 'pre-vote-response':
    case 'vote-response':
      return { type, ...envelope, granted: flag(fields, 'granted') }
    case 'append':
      return parseAppend(fields, envelope)
    case 'append-response':
      return {
        type,
        ...envelope,
        ...parseStamp(fields),
        index: count(fields, 'index'),
        rejected: flag(fields, 'rejected'),
        hintIndex: count(fields, 'hintIndex'),
        hintTerm: count(fields, 'hintTerm'),
      }
    case 'heartbeat': {
      const commit = count(fields, 'commit')
      return { type, ...envelope, ...parseStamp(fields), commit, readSequence: count(fields, 'readSequence') }
    }
    case 'heartbeat-response':
      return { type, ...envelope, ...parseStamp(fields), readSequence: count(fields, 'readSequence') }
    case 'snapshot':
      return { type, ...envelope, ...parseStamp(fields), snapshot: parseSnapshot(fields['snapshot']) }
    case 'timeout-now':
      return { type, ...envelope, leaseEpoch: count(fields, 'leaseEpoch') }
    default:
      throw bad(`a message of unknown type ${String(type)}`)
  }
}

function parseAppend(
  fields: Fields,
  envelope: { readonly from: number; readonly to: number; readonly term: number },
): Message {
  const previousIndex = count(fields, 'previousIndex')
  const previousTerm = count(fields, 'previousTerm')
  const list = fields['entries']
  if (!Array.isArray(list) || list.length > entryCountMax) throw bad('entries are a list of bounded length')
  let lowestTerm = previousTerm
  const entries = list.map((item: unknown, position): Entry => {
    const entry = parseEntry(item)
    if (entry.index !== previousIndex + 1 + position) throw bad('entries are consecutive')
    if (entry.term < lowestTerm || entry.term > envelope.term) throw bad('terms rise along the log')
    lowestTerm = entry.term
    return entry
  })
  const commit = count(fields, 'commit')
  return { type: 'append', ...envelope, ...parseStamp(fields), previousIndex, previousTerm, entries, commit }
}

function parseEntry(value: unknown): Entry {
  const fields = fieldsOf(value, 'an entry')
  const { kind, data } = fields
  if (!entryKinds.has(kind)) throw bad(`an entry of unknown kind ${String(kind)}`)
  if (!Buffer.isBuffer(data)) throw bad('the data of an entry are bytes')
  // Checked here, so that a log never holds one that cannot be read.
  if (kind === 'configuration') decodeConfiguration(data)
  return { index: positive(fields, 'index'), term: positive(fields, 'term'), kind: kind as EntryKind, data }
}

function parseSnapshot(value: unknown): Snapshot {
  const fields = fieldsOf(value, 'a snapshot')
  const { voters, learners } = fieldsOf(fields['configuration'], 'a configuration')
  const configuration = checkedConfiguration(voters, learners)
  return { index: positive(fields, 'index'), term: positive(fields, 'term'), configuration }
}

function parseTransfer(value: unknown): Transfer {
  const fields = fieldsOf(value, 'a transfer')
  return { term: positive(fields, 'term'), leaseEpoch: count(fields, 'leaseEpoch') }
}

function parseStamp(fields: Fields): { readonly tick: number; readonly leaseEpoch: number } {
  return { tick: count(fields, 'tick'), leaseEpoch: count(fields, 'leaseEpoch') }
}

function fieldsOf(value: unknown, what: string): Fields {
  if (typeof value !== 'object' || value === null) throw bad(`${what} is no object`)
  return value as Fields
}

function count(fields: Fields, name: string): number {
  const value = fields[name]
  if (!Number.isSafeInteger(value) || (value as number) < 0) throw bad(`${name} is no whole number`)
  return value as number
}

function positive(fields: Fields, name: string): number {
  const value = count(fields, name)
  if (value === 0) throw bad(`${name} is zero`)
  return value
}

function flag(fields: Fields, name: string): boolean {
  const value = fields[name]
  if (typeof value !== 'boolean') throw bad(`${name} is neither true nor false`)
  return value
}

function bad(what: string): Error {
  return raftError('RAFT_BAD_MESSAGE', `Raft message refused: ${what}.`)
}
