/** How a trace words what it expects: `name=value` pairs against the facts of members and messages. */
import type { Message } from '../index.ts'

export class ScriptError extends Error {}

export type Facts = Readonly<Record<string, string | number | boolean>>

export function isLink(message: Message, from: number, to: number): boolean {
  return message.from === from && message.to === to
}

export function parametersOf(words: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    words.map((word) => [word.split('=')[0] ?? '', word.slice(word.indexOf('=') + 1)]),
  )
}

export function factsOfMessage(message: Message): Facts {
  const facts: Record<string, string | number | boolean> = { term: message.term }
  for (const [name, value] of Object.entries(message) as [string, unknown][])
    if (typeof value === 'number' || typeof value === 'boolean') facts[name] = value
  if (message.type === 'append')
    facts['entries'] = message.entries.map((entry) => entry.term).join(',') || 'none'
  return facts
}

export function describeMessage(message: Message): string {
  const facts = Object.entries(factsOfMessage(message)).map(([name, value]) => `${name}=${value}`)
  return `${message.type} ${facts.join(' ')}`
}

export function compare(facts: Facts, expected: Readonly<Record<string, string>>): void {
  const wrong = Object.entries(expected).filter(([name, value]) => String(facts[name]) !== value)
  if (wrong.length > 0)
    throw new ScriptError(`it is ${wrong.map(([name]) => `${name}=${facts[name]}`).join(' ')}`)
}
