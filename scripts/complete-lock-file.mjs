// Adds to package-lock.json the optional packages of other systems that npm left out because the registry
// did not offer them while it wrote the file. Without these entries `npm ci` of npm 11 refuses the whole file,
// although it would install none of them on Linux. After a change of dependencies:
//   npm install && node scripts/complete-lock-file.mjs && npm install --package-lock-only
// (the last one puts the entries in npm's order; a tidy test fails when this was forgotten).
// An entry it adds has no integrity, and is only ever installed on the system it is for.

import { readFileSync, writeFileSync } from 'node:fs'

const lockPath = 'package-lock.json'
const lock = JSON.parse(readFileSync(lockPath, 'utf8'))
const systems = [
  'android',
  'darwin',
  'freebsd',
  'linux',
  'netbsd',
  'openbsd',
  'openharmony',
  'sunos',
  'win32',
  'aix',
]
const processors = ['arm64', 'arm', 'x64', 'ia32', 'ppc64', 'riscv64', 's390x', 'loong64', 'mips64el']

/** What the platform package's name says about it: `@oxlint/binding-linux-arm64-musl`. */
function platformOf(name) {
  const words = name.split('/').at(-1).split('-')
  const system = systems.find((one) => words.includes(one))
  const processor = processors.find((one) => words.includes(one))
  if (system === undefined || processor === undefined) return undefined
  const libc = words.includes('musl') ? 'musl' : words.includes('gnu') ? 'glibc' : undefined
  return { cpu: [processor], ...(libc === undefined ? {} : { libc: [libc] }), os: [system] }
}

const added = []
for (const [path, entry] of Object.entries(lock.packages)) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    const nestedPath = `${path}/node_modules/${name}`
    const hoistedPath = `node_modules/${name}`
    if (lock.packages[nestedPath] !== undefined || lock.packages[hoistedPath] !== undefined) continue
    const platform = platformOf(name)
    if (platform === undefined || !/^\d+\.\d+\.\d+$/.test(version)) {
      console.error(`complete-lock-file: cannot tell the platform of ${name}@${version}; add it by hand`)
      process.exitCode = 1
      continue
    }
    const dev = entry.dev === true ? { dev: true } : {}
    lock.packages[hoistedPath] = { version, ...platform, ...dev, optional: true }
    added.push(`${name}@${version}`)
  }
}
if (added.length > 0) writeFileSync(lockPath, `${JSON.stringify(lock, null, 2)}\n`)
console.log(`complete-lock-file: ${added.length === 0 ? 'nothing was missing' : `added ${added.join(', ')}`}`)
