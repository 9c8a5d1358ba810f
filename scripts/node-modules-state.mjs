// Says by its exit status whether node_modules holds what package-lock.json asks for: 0 yes, 1 no (with the
// first difference on stderr). Compares with the hidden lock file that npm writes after every install, so
// it needs no stamp of its own and no network. Packages for other processors and systems may be absent.
// Plain JavaScript without dependencies: the host's Node runs it before anything is installed.

import { existsSync, readFileSync } from 'node:fs'

const runtimePackage = `node_modules/node-linux-${process.arch}`

function readPackages(path) {
  return JSON.parse(readFileSync(path, 'utf8')).packages
}

function firstDifference() {
  if (!existsSync('node_modules/.package-lock.json')) return 'node modules are not installed'
  const locked = readPackages('package-lock.json')
  const installed = readPackages('node_modules/.package-lock.json')
  for (const [path, wanted] of Object.entries(locked)) {
    if (!path.startsWith('node_modules/')) continue
    const found = installed[path]
    const mayBeAbsent = wanted.optional === true || wanted.devOptional === true || wanted.peer === true
    if (found === undefined) {
      if (!mayBeAbsent) return `${path} is not installed`
    } else if (found.version !== wanted.version || found.link !== wanted.link) {
      return `${path} is ${found.version}, the lock file says ${wanted.version}`
    }
  }
  for (const path of Object.keys(installed)) {
    if (path.startsWith('node_modules/') && locked[path] === undefined)
      return `${path} is not in the lock file`
  }
  if (installed[runtimePackage] === undefined) {
    return `${runtimePackage} is not installed: no Node runtime for ${process.platform} ${process.arch}`
  }
  return undefined
}

const difference = firstDifference()
if (difference !== undefined) {
  console.error(`bootstrap: ${difference}`)
  process.exit(1)
}
