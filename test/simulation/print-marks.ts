/** `node --import`: says at the end of the process which situations it has visited (core/base/coverage.ts). */
import { writeSync } from 'node:fs'
import { startMarks } from '../../core/base/coverage.ts'

const marks = startMarks()
process.on('exit', () => void writeSync(process.stderr.fd, `visited: ${JSON.stringify([...marks.keys()])}\n`))
