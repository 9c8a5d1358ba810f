/**
 * Events for people, worded as the guide words them ("Monitoring Event Logs"). The same event is recorded
 * again only after a pause, so that a storm of failures cannot fill the log.
 */
import type { EventSeverity } from '../../state/rows.ts'
import type { Master } from './master.ts'

const REPEAT_PAUSE_MS = 10_000
const REMEMBERED_COUNT_MAX = 1024

export type EventSystem = 'MDS' | 'CS' | 'JRN' | 'CLI'

export class EventRecorder {
  readonly #master: Master
  /** Key of an event -> when it was recorded last. */
  readonly #recent = new Map<string, number>()

  constructor(master: Master) {
    this.#master = master
  }

  /** `subject`: what may not repeat soon; '' records always. */
  record(system: EventSystem, severity: EventSeverity, code: string, message: string, subject = ''): void {
    if (subject !== '' && this.#isRepeated(`${code} ${subject}`)) return
    this.#master.logger.info('event', { system, severity, code, message })
    this.#master.submit({ type: 'event.record', system, severity, code, message: message.slice(0, 1000) })
  }

  #isRepeated(key: string): boolean {
    const nowMs = this.#master.clock.nowMs()
    const last = this.#recent.get(key)
    if (last !== undefined && nowMs - last < REPEAT_PAUSE_MS) return true
    this.#recent.delete(key)
    this.#recent.set(key, nowMs)
    if (this.#recent.size > REMEMBERED_COUNT_MAX) {
      const [oldest] = this.#recent.keys()
      if (oldest !== undefined) this.#recent.delete(oldest)
    }
    return false
  }
}
