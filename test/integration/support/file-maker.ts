/**
 * Makes files: DIRECTORIES directories `d<FIRST>`… below PARENT, each with FILES files; every fiftieth has
 * contents. A program of its own, so that several of them work in parallel.
 */
import fs from 'node:fs'
import path from 'node:path'
import { contentsOf } from './file-contents.ts'

const [parent, first, directories, files] = process.argv.slice(2)
if (parent === undefined || files === undefined)
  throw new Error('usage: file-maker.ts PARENT FIRST DIRECTORIES FILES')
for (let number = Number(first); number < Number(first) + Number(directories); number++) {
  const directory = path.join(parent, `d${number}`)
  fs.mkdirSync(directory)
  for (let file = 0; file < Number(files); file++) {
    fs.writeFileSync(path.join(directory, `f${file}`), contentsOf(number, file), { flag: 'wx' })
  }
}
