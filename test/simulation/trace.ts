/**
 * What happened in a run, for people and for the determinism check: every line goes into a running hash;
 * the lines themselves are kept only when somebody wants to read them (the last ones always).
 */
import type { LogFields, Logger } from '../../core/platform/logger.ts'
import type { Clock } from '../../core/platform/clock.ts'

const LINES_KEPT = 60

export class Trace {
  readonly #clock: Clock
  readonly #print: ((line: string) => void) | null
  readonly #last: string[] = []
  #hash = 0x811c9dc5
  #count = 0

  constructor(clock: Clock, print: ((line: string) => void) | null) {
    this.#clock = clock
    this.#print = print
  }

  get lineCount(): number {
    return this.#count
  }

  get isPrinting(): boolean {
    return this.#print !== null
  }

  /** Two runs that did the same in the same order have the same. */
  get hash(): string {
    return (this.#hash >>> 0).toString(16).padStart(8, '0')
  }

  get lastLines(): readonly string[] {
    return this.#last
  }

  line(who: string, what: string): void {
    const line = `${(this.#clock.nowMs() / 1000).toFixed(4).padStart(9)} ${who.padEnd(9)} ${what}`
    this.#count++
    for (let at = 0; at < line.length; at++)
      this.#hash = Math.imul(this.#hash ^ line.charCodeAt(at), 0x01000193)
    this.#last.push(line)
    if (this.#last.length > LINES_KEPT) this.#last.shift()
    this.#print?.(line)
  }

  /** The log of one simulated process. Debug lines count only when printing, the others always. */
  logger(who: string): Logger {
    const write = (level: string) => (message: string, fields?: LogFields) => {
      const rest =
        fields === undefined
          ? ''
          : Object.entries(fields)
              .map(([key, value]) => ` ${key}=${value}`)
              .join('')
      this.line(who, `${level} ${message}${rest}`)
    }
    const logger: Logger = {
      debug: this.#print === null ? () => {} : write('debug'),
      info: write('info'),
      warn: write('WARN'),
      error: write('ERROR'),
      child: () => logger,
    }
    return logger
  }
}
