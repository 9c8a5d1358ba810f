/**
 * Loaded into a server with `--import`: notes stalls of its event loop in the file that CAIRN_STALLS names, one
 * line each: milliseconds since the start of the process, milliseconds from one turn of the timers to the next,
 * and how many of them this thread had a processor. On a busy machine only the last says something of the server.
 */
import fs from 'node:fs'

const INTERVAL_MS = 5
const NOTED_MS = 20
const MICROSECONDS_PER_MS = 1000

const file = process.env['CAIRN_STALLS']
if (file !== undefined) {
  const busyMs = (): number => {
    const { user, system } = process.threadCpuUsage()
    return (user + system) / MICROSECONDS_PER_MS
  }
  let lastMs = performance.now()
  let lastBusyMs = busyMs()
  const timer = setInterval(() => {
    const nowMs = performance.now()
    const nowBusyMs = busyMs()
    if (nowMs - lastMs - INTERVAL_MS > NOTED_MS) {
      const stall = [process.uptime() * 1000, nowMs - lastMs - INTERVAL_MS, nowBusyMs - lastBusyMs]
      fs.appendFileSync(file, `${stall.map(Math.round).join(' ')}\n`)
    }
    lastMs = nowMs
    lastBusyMs = nowBusyMs
  }, INTERVAL_MS)
  timer.unref()
}
