/**
 * Where passwords come from: a file, a terminal (nothing is shown while it is typed), or the lines of standard
 * input. Never the command line, which every user of the machine can read.
 */
import fs from 'node:fs'
import { CairnError } from '../base/errors.ts'

const PASSWORD_BYTES_MAX = 1024
const CONTROL_C = '\u0003'
const CONTROL_D = '\u0004'
const BACKSPACES = ['\u0008', '\u007f']

export interface PasswordSource {
  /** Its first line. Undefined: terminal or standard input. */
  readonly file?: string | undefined
  /** What is asked for, on a terminal. */
  readonly prompt: string
  /** A new password is typed twice. */
  readonly isNew?: boolean
  readonly warn: (text: string) => void
}

/** Throws USAGE when there is none. */
export async function readPassword(source: PasswordSource): Promise<string> {
  const { file, prompt } = source
  if (file !== undefined) return checked(passwordFile(file, source.warn), file)
  if (!process.stdin.isTTY) return checked(await nextInputLine(), 'standard input')
  const password = checked(await typed(`${prompt}: `), 'the terminal')
  if (source.isNew === true && (await typed(`${prompt}, again: `)) !== password)
    throw new CairnError('USAGE', 'the two passwords differ', { next: 'try again' })
  return password
}

function passwordFile(file: string, warn: (text: string) => void): string {
  let text: string
  try {
    text = fs.readFileSync(file, 'utf8')
    if ((fs.statSync(file).mode & 0o077) !== 0) warn(`the password file ${file} can be read by others`)
  } catch (error) {
    throw new CairnError('USAGE', `the password file ${file} cannot be read: ${(error as Error).message}`)
  }
  return text.split('\n')[0] ?? ''
}

let inputLines: string[] | null = null

async function nextInputLine(): Promise<string> {
  if (inputLines === null) {
    const pieces: Buffer[] = []
    for await (const piece of process.stdin) pieces.push(piece as Buffer)
    inputLines = Buffer.concat(pieces).toString('utf8').split('\n')
  }
  return inputLines.shift() ?? ''
}

/** The same characters typed on another keyboard may be other code points: NFC makes them equal. */
function checked(text: string, from: string): string {
  const password = text.replace(/\r$/, '').normalize('NFC')
  if (password === '')
    throw new CairnError('USAGE', `there is no password on ${from}`, {
      next: 'type it, or name a file whose first line it is with --password-file',
    })
  if (Buffer.byteLength(password) > PASSWORD_BYTES_MAX)
    throw new CairnError('USAGE', `the password on ${from} is longer than ${PASSWORD_BYTES_MAX} bytes`)
  return password
}

function typed(prompt: string): Promise<string> {
  const { stdin, stderr } = process
  return new Promise((resolve, reject) => {
    let characters: string[] = []
    const end = (): void => {
      stdin.off('data', onData)
      stdin.setRawMode(false)
      stdin.pause()
      stderr.write('\n')
    }
    const onData = (data: Buffer): void => {
      for (const character of data.toString('utf8')) {
        if (character === '\r' || character === '\n' || character === CONTROL_D) {
          end()
          resolve(characters.join(''))
          return
        }
        if (character === CONTROL_C) {
          end()
          reject(new CairnError('USAGE', 'interrupted'))
          return
        }
        if (BACKSPACES.includes(character)) characters = characters.slice(0, -1)
        else if (characters.length < PASSWORD_BYTES_MAX) characters.push(character)
      }
    }
    // First nothing is echoed, then it is asked for: some type ahead.
    stdin.setRawMode(true)
    stderr.write(prompt)
    stdin.resume()
    stdin.on('data', onData)
  })
}
