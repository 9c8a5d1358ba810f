/** The real clocks of a Linux process. */
import { closeSync, openSync, readSync } from 'node:fs'
import { uptime } from 'node:os'
import type { Clock, Timer, WallTime } from '../clock.ts'

/**
 * /proc/uptime (CLOCK_BOOTTIME) has a resolution of 10 ms and costs a system call, so it is read this
 * often at most; in between the monotonic clock counts on.
 */
const BOOT_READ_INTERVAL_MS = 10
/** The wall clock runs on in suspend: when it moved this much against the monotonic one, read at once. */
const WALL_MOVE_MS = 5

export class NodeClock implements Clock {
  readonly #buffer = Buffer.alloc(64)
  readonly #descriptor: number | null
  /** boot = monotonic + offset; the offset only ever rises (by suspends). */
  #bootOffsetMs: number
  #bootReadAtMs: number
  /** Wall minus monotonic at that reading. */
  #bootReadWallMs = 0
  #wallOffsetMs = performance.timeOrigin

  constructor() {
    this.#descriptor = openUptime()
    this.#bootReadAtMs = performance.now()
    this.#bootOffsetMs = this.#readUptimeMs() - this.#bootReadAtMs
  }

  nowMs(): number {
    return performance.now()
  }

  /** rule L2: counts suspend, also right after a resume. Never goes backward; at most 10 ms behind the kernel. */
  bootMs(): number {
    const nowMs = performance.now()
    const wallMs = Date.now() - nowMs
    if (
      nowMs - this.#bootReadAtMs >= BOOT_READ_INTERVAL_MS ||
      Math.abs(wallMs - this.#bootReadWallMs) > WALL_MOVE_MS
    ) {
      const offsetMs = this.#readUptimeMs() - nowMs
      // uptime is rounded down to 10 ms: only a larger offset says something new
      if (offsetMs > this.#bootOffsetMs) this.#bootOffsetMs = offsetMs
      this.#bootReadAtMs = nowMs
      this.#bootReadWallMs = wallMs
    }
    return nowMs + this.#bootOffsetMs
  }

  wall(): WallTime {
    const monotonicMs = performance.now()
    const dateMs = Date.now()
    let preciseMs = monotonicMs + this.#wallOffsetMs
    // the fraction comes from the monotonic clock as long as both agree; steps and slews start afresh
    if (preciseMs < dateMs || preciseMs >= dateMs + 1) {
      this.#wallOffsetMs = dateMs - monotonicMs
      preciseMs = dateMs
    }
    const seconds = Math.floor(preciseMs / 1000)
    return { seconds, nanoseconds: Math.floor((preciseMs - seconds * 1000) * 1e6) }
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    const timer = setTimeout(callback, delayMs)
    return { cancel: () => clearTimeout(timer) }
  }

  defer(callback: () => void): void {
    setImmediate(callback)
  }

  #readUptimeMs(): number {
    if (this.#descriptor === null) return uptime() * 1000
    const count = readSync(this.#descriptor, this.#buffer, 0, this.#buffer.length, 0)
    return Number.parseFloat(this.#buffer.toString('latin1', 0, count)) * 1000
  }
}

function openUptime(): number | null {
  try {
    const descriptor = openSync('/proc/uptime', 'r')
    // sandboxes serve a /proc/uptime of their own: believe it only when it agrees with the kernel
    const buffer = Buffer.alloc(64)
    const count = readSync(descriptor, buffer, 0, buffer.length, 0)
    if (Math.abs(Number.parseFloat(buffer.toString('latin1', 0, count)) - uptime()) < 5) return descriptor
    closeSync(descriptor)
  } catch {
    // no /proc: os.uptime() asks the same clock by system call
  }
  return null
}
