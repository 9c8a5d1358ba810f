/** A word that a person types before something that cannot be taken back. */
import readline from 'node:readline/promises'
import { CairnError } from '../base/errors.ts'

/** One line from the terminal, or of standard input. Throws USAGE when there is none. */
export async function readTyped(prompt: string): Promise<string> {
  const reader = readline.createInterface({ input: process.stdin, output: process.stderr })
  const ended = new Promise<null>((resolve) => reader.once('close', () => resolve(null)))
  try {
    const answer = await Promise.any([reader.question(prompt), ended])
    if (answer !== null) return answer.trim()
    throw new CairnError('USAGE', 'nothing was typed', { next: 'give the name on the command line' })
  } finally {
    reader.close()
  }
}
