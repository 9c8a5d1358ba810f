/** `cairn mount`, `cairn umount` and the fstab helper, as programs. Needs root and /dev/fuse. */
import assert from 'node:assert/strict'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { makeDirectory, program, shell, until } from './testing/harness.ts'

let base: string
let directory: string
let cairn: string
let log: string

before(() => {
  base = makeDirectory()
  directory = join(base, 'a mount')
  cairn = join(base, 'cairn')
  log = join(base, 'log')
  fs.mkdirSync(directory)
  const main = join(import.meta.dirname, 'testing/cairn-main.ts')
  // The helper passes no --log: the default place would be outside of this test's directory.
  fs.writeFileSync(cairn, `#!/bin/sh\nexec '${process.execPath}' '${main}' --log '${log}' "$@"\n`, {
    mode: 0o755,
  })
})

after(() => {
  assert.doesNotMatch(fs.readFileSync('/proc/self/mountinfo', 'utf8'), new RegExp(base))
  fs.rmSync(base, { recursive: true })
})

test('mount returns when the mount is usable and says so in one line; umount waits for its process', async () => {
  const mounted = await program(cairn, ['mount', '-c', 'memory', '-o', 'nosuid,noexec', directory])
  assert.equal(mounted.status, 0, mounted.output)
  assert.match(mounted.output, /^cluster memory is mounted on .*a mount \(process \d+, log .*\)$/)
  const processId = Number(/process (\d+)/.exec(mounted.output)?.[1])
  fs.writeFileSync(join(directory, 'script'), '#!/bin/sh\n', { mode: 0o755 })
  assert.equal((await program(join(directory, 'script'), [])).status, -1, 'noexec')
  const again = await program(cairn, ['mount', directory])
  assert.match(again.output, /is mounted already.*\nEBUSY: run: cairn umount/s)
  const held = fs.openSync(join(directory, 'script'), 'r')
  assert.match((await program(cairn, ['umount', directory])).output, /busy.*\nEBUSY: see who uses it/s)
  fs.closeSync(held)
  const unmounted = await program(cairn, ['umount', directory])
  assert.equal(unmounted.status, 0, unmounted.output)
  assert.equal(fs.existsSync(`/proc/${processId}`), false)
  assert.match((await program(cairn, ['umount', directory])).output, /no cluster is mounted.*\nNOT_FOUND/s)
})

test('umount -f takes the mount away from programs that use it', async () => {
  const mounted = await program(cairn, ['mount', '-c', 'memory', directory])
  assert.equal(mounted.status, 0, mounted.output)
  const processId = Number(/process (\d+)/.exec(mounted.output)?.[1])
  const held = fs.openSync(join(directory, 'used'), 'w')
  const forced = await program(cairn, ['umount', '-f', directory])
  assert.equal(forced.status, 0, forced.output)
  assert.equal(fs.existsSync(`/proc/${processId}`), false)
  assert.throws(() => fs.writeSync(held, 'text'), { code: /ENOTCONN|ECONNABORTED/ })
  assert.doesNotMatch(fs.readFileSync('/proc/self/mountinfo', 'utf8'), new RegExp(directory))
  assert.throws(() => fs.closeSync(held))
})

test('a mount that cannot be made says what the serving process found, and what to do', async () => {
  const unreachable = await program(cairn, ['mount', '-c', 'other', directory])
  assert.equal(unreachable.status, 1)
  assert.match(unreachable.output, /no metadata server of cluster 'other' is known\nUNREACHABLE: name one/)
  assert.match(
    (await program(cairn, ['mount', join(base, 'nowhere')])).output,
    /NOT_FOUND: create it: mkdir -p/,
  )
  assert.match(
    (await program(cairn, ['mount', '-o', 'frob', directory])).output,
    /option frob is not known\nUSAGE/,
  )
  assert.match((await program(cairn, ['mount', '-c', 'cairn://a b', directory])).output, /USAGE/)
})

test('read-only mounts refuse writes', async () => {
  await shell(
    `'${cairn}' mount -o ro '${directory}'; ! touch '${directory}/x' 2>err; grep -q Read-only err; rm err`,
    base,
  )
  assert.equal((await program(cairn, ['umount', directory])).status, 0)
})

test('fstab lines, mount DIR and umount DIR work through the helper', async () => {
  const helper = '/sbin/mount.fuse.cairn'
  assert.equal(fs.existsSync(helper), false, 'installed already: this test must not replace it')
  const table = join(base, 'fstab')
  fs.writeFileSync(
    table,
    `cairn://memory ${directory.replace(' ', '\\040')} fuse.cairn rw,nosuid,nodev,_netdev 0 0\n`,
  )
  fs.symlinkSync(join(import.meta.dirname, 'mount.fuse.cairn'), helper)
  try {
    await shell(`CAIRN='${cairn}' mount -T '${table}' '${directory}'`, base)
    await shell(
      `findmnt -n -o SOURCE,FSTYPE,OPTIONS '${directory}' | grep 'cairn://memory fuse.cairn rw,nosuid,nodev'`,
      base,
    )
    fs.writeFileSync(join(directory, 'file'), 'text')
    await shell(`umount '${directory}'`, base)
    const bad = await program('mount', ['-t', 'fuse.cairn', 'elsewhere', directory])
    assert.notEqual(bad.status, 0)
  } finally {
    fs.unlinkSync(helper)
  }
  await until('its process has ended', () => !fs.existsSync('/run/cairn/mounts') || noProcessOf(base))
})

function noProcessOf(text: string): boolean {
  return fs
    .readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .every((name) => {
      try {
        return !fs.readFileSync(`/proc/${name}/cmdline`, 'utf8').includes(text)
      } catch {
        return true // it ended meanwhile
      }
    })
}
