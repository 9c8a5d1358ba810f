/** Messages of consensus as they travel: the entries of an append apart, in the bytes in which they are stored. */
import { type Entry, type Message, parseMessage } from '../../raft/index.ts'
import type { MemberMethods } from '../../wire/messages/quorum.ts'
import type { ParamsOf } from '../../wire/messages/method.ts'
import { decodeEntry, encodeEntry } from '../log/codec.ts'

export type StepParams = ParamsOf<MemberMethods, 'raft.step'>

const noEntries: readonly Entry[] = []

export function encodeStep(message: Message): StepParams {
  const entries = message.type === 'append' ? message.entries : noEntries
  const head = message.type === 'append' ? { ...message, entries: noEntries } : message
  return { head, terms: entries.map(({ term }) => term), entries: entries.map(encodeEntry) }
}

/** Throws RAFT_BAD_MESSAGE, LOG_CORRUPT. */
export function decodeStep({ head, terms, entries }: StepParams): Message {
  if (entries.length === 0 || typeof head !== 'object' || head === null) return parseMessage(head)
  const previousIndex = Number((head as { previousIndex?: unknown }).previousIndex)
  const decoded = entries.map((bytes, position) => {
    const data = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
    return decodeEntry({ index: previousIndex + 1 + position, term: terms[position] ?? 0, data })
  })
  return parseMessage({ ...head, entries: decoded })
}
