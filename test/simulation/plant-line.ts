/** `node --import`: plants the line that the environment names, before anything of `core` is loaded. */
import { registerHooks } from 'node:module'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { LINE_VARIABLE } from './planted-line.ts'
import { plantedLines } from './planted-lines.ts'

const key = process.env[LINE_VARIABLE]
const planted = plantedLines.find((candidate) => candidate.key === key)
if (planted === undefined) throw new Error(`no planted line ${key}`)
const { file, line, becomes } = planted
const target = pathToFileURL(path.join(import.meta.dirname, '../../core', file)).href

registerHooks({
  load(url, context, nextLoad) {
    const loaded = nextLoad(url, context)
    if (url !== target) return loaded
    const { source: bytes = '' } = loaded
    const source = typeof bytes === 'string' ? bytes : new TextDecoder().decode(bytes)
    if (source.split(line).length !== 2)
      throw new Error(`${file} does not have this exactly once any more, planted by ${key}: ${line}`)
    // also where it has a dollar
    return { ...loaded, source: source.replace(line, () => becomes) }
  },
})
