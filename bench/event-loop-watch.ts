/**
 * Loaded into a server with `--import`: writes the longest stall of its event loop into the file that
 * CAIRN_STALLS names, one line for each 100 ms in which there was one above 20 ms: milliseconds since the start
 * of the process, and of the stall.
 */
import fs from 'node:fs'
import { monitorEventLoopDelay } from 'node:perf_hooks'

const INTERVAL_MS = 100
const RESOLUTION_MS = 5
const NOTED_MS = 20
const NANOSECONDS_PER_MS = 1e6

const file = process.env['CAIRN_STALLS']
if (file !== undefined) {
  const histogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS })
  histogram.enable()
  const timer = setInterval(() => {
    const stallMs = histogram.max / NANOSECONDS_PER_MS - RESOLUTION_MS
    histogram.reset()
    if (stallMs > NOTED_MS)
      fs.appendFileSync(file, `${Math.round(process.uptime() * 1000)} ${Math.round(stallMs)}\n`)
  }, INTERVAL_MS)
  timer.unref()
}
