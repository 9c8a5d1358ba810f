/** How this program starts itself again. */
import path from 'node:path'
import { nodeClock } from '../platform/node/platform.ts'

const MAIN = path.join(import.meta.dirname, 'main.ts')

/** The command line of `cairn PARAMETERS…` as this very version, on this very Node. */
export function cairnCommand(parameters: readonly string[]): string[] {
  return [process.execPath, ...process.execArgv, MAIN, ...parameters]
}

export function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => {
    nodeClock.setTimer(milliseconds, resolve)
  })
}
