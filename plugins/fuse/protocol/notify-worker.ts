/**
 * The helper thread that writes notifications to /dev/fuse (rule L9): the write may block in the kernel
 * on a page whose request only the main thread's event loop can answer, so it must not happen there.
 * One batch at a time; each is acknowledged with the codes of the writes that failed.
 */
import { writeSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { codeOf } from './errno.ts'

const { descriptor } = workerData as { descriptor: number }

parentPort?.on('message', (batch: Uint8Array[]) => {
  const codes: string[] = []
  for (const notification of batch) {
    try {
      writeSync(descriptor, notification)
    } catch (error) {
      codes.push(codeOf(error))
    }
  }
  parentPort?.postMessage(codes)
})
