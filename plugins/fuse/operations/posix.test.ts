/**
 * Real mounts of the in-memory client, used by programs nobody here wrote and by system calls: what
 * ordinary software expects of a POSIX file system. Needs root and /dev/fuse.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import {
  type MountedProcess,
  ended,
  makeDirectory,
  mountMemory,
  program,
  shell,
  until,
} from '../testing/harness.ts'

let mounted: MountedProcess
let root: string
let tools: string
let probe: string

const errnoOf = (work: () => unknown): string => {
  try {
    work()
    return 'none'
  } catch (error) {
    return error instanceof Error && 'code' in error ? String(error.code) : String(error)
  }
}

before(async () => {
  mounted = await mountMemory()
  root = mounted.directory
  tools = makeDirectory()
  probe = join(tools, 'probe')
  await shell(`gcc -O1 -o ${probe} ${join(import.meta.dirname, '../testing/posix-probe.c')}`, tools)
})

after(async () => {
  fs.rmSync(tools, { recursive: true })
  await mounted.stop()
  assert.doesNotMatch(mounted.log(), /^(warn|error)/m)
})

/** The errno number a system call of the probe ended with, or what it printed. */
async function call(...words: string[]): Promise<string> {
  const { status, output } = await program(probe, words)
  assert.equal(status, 0, output)
  return output
}

test('copies of trees are equal, with owners, modes, times and links', async () => {
  await shell(
    `mkdir ${tools}/tree; cd ${tools}/tree
     mkdir -p a/b; echo one >a/one; ln a/one a/hard; ln -s ../one a/b/soft; chmod 4711 a/one; chown 12:34 a/b
     head -c 3000000 /dev/urandom >a/big; : >a/empty; mkfifo -m 600 a/pipe; mknod a/null c 1 3; chmod 2775 a/b
     touch -d '2001-02-03 04:05:06.123456789' a/big; touch -hd '1969-12-31 23:59:58.5' a/b/soft
     setfattr -n user.color -v blue a/one
     cp -a ${tools}/tree ${root}/; rm -f ${root}/tree/a/pipe a/pipe; diff -r -x null ${tools}/tree ${root}/tree
     list() { find . -mindepth 1 -printf '%p %y %m %U:%G %n %s %T@ %l\\n' | awk '$2 == "d" { $6 = $7 = "" } 1' | sort; }
     list >${tools}/here; cd ${root}/tree; list >${tools}/there; diff ${tools}/here ${tools}/there
     getfattr --only-values -n user.color a/one | grep -qx blue
     test "$(stat -c %t,%T a/null)" = 1,3`,
    root,
  )
})

test('tar, mv, gcc and a git repository work', async () => {
  await shell(
    `mkdir work; cd work; tar -C ${import.meta.dirname} -cf all.tar --exclude=node_modules .; mkdir x; tar -C x -xpf all.tar
     tar -C x -df all.tar; mv x y; test ! -e x
     cp ${join(import.meta.dirname, '../testing/posix-probe.c')} p.c; gcc -o p p.c; ./p seek p.c 0 data | grep -qx 0
     git init -q .; git add y; git -c user.name=a -c user.email=a@b commit -qm first; git fsck --strict 2>&1
     git status --porcelain | grep -q p.c; git gc -q; git fsck --strict; test -z "$(git diff)"`,
    root,
  )
})

test('times keep nanoseconds, now is now, and closing does not overwrite a time that was set', async () => {
  const path = join(root, 'times')
  const fd = fs.openSync(path, 'w')
  fs.writeSync(fd, 'text')
  fs.futimesSync(fd, 1_000_000_000.5, 5.25)
  fs.closeSync(fd)
  assert.equal(fs.statSync(path, { bigint: true }).mtimeNs, 5_250_000_000n)
  await shell(`touch -d '2030-01-02 03:04:05.987654321 UTC' times; touch -a times`, root)
  const status = fs.statSync(path, { bigint: true })
  assert.equal(status.mtimeNs, 1_893_553_445_987_654_321n)
  assert.ok(Math.abs(Number(status.atimeMs) - Date.now()) < 60_000)
  const before = status.ctimeNs
  fs.chmodSync(path, 0o640)
  assert.ok(fs.statSync(path, { bigint: true }).ctimeNs > before)
})

test('names: rename replaces, refuses, exchanges; links count; errors have their POSIX codes', async () => {
  const path = (name: string) => join(root, 'names', name)
  fs.mkdirSync(path(''))
  fs.writeFileSync(path('a'), 'a')
  fs.writeFileSync(path('b'), 'b')
  const [none, exchange, whiteout] = ['1', '2', '4']
  assert.equal(await call('rename', path('a'), path('b'), none), '17')
  assert.equal(await call('rename', path('a'), path('b'), exchange), '0')
  assert.equal(fs.readFileSync(path('a'), 'utf8') + fs.readFileSync(path('b'), 'utf8'), 'ba')
  assert.equal(await call('rename', path('a'), path('b'), whiteout), '22')
  fs.renameSync(path('a'), path('b'))
  assert.equal(fs.existsSync(path('a')), false)
  assert.equal(fs.readFileSync(path('b'), 'utf8'), 'b')
  fs.linkSync(path('b'), path('c'))
  assert.equal(fs.statSync(path('b')).nlink, 2)
  fs.unlinkSync(path('b'))
  assert.equal(fs.statSync(path('c')).nlink, 1)
  fs.mkdirSync(path('d/e'), { recursive: true })
  assert.equal(
    errnoOf(() => fs.rmdirSync(path('d'))),
    'ENOTEMPTY',
  )
  assert.equal(
    errnoOf(() => fs.renameSync(path('d'), path('c'))),
    'ENOTDIR',
  )
  assert.equal(
    errnoOf(() => fs.renameSync(path('d'), path('d/e/f'))),
    'EINVAL',
  )
  assert.equal(
    errnoOf(() => fs.mkdirSync(path('c'))),
    'EEXIST',
  )
  assert.equal(
    errnoOf(() => fs.openSync(path('nothing'), 'r')),
    'ENOENT',
  )
  assert.equal(
    errnoOf(() => fs.readdirSync(path('c'))),
    'ENOTDIR',
  )
  assert.equal(
    errnoOf(() => fs.writeFileSync(path('n'.repeat(256)), '')),
    'ENAMETOOLONG',
  )
  assert.equal(
    errnoOf(() => fs.writeFileSync(Buffer.concat([Buffer.from(`${path('')}/`), Buffer.from([0xff])]), '')),
    'EILSEQ',
  )
  fs.renameSync(path('d'), path('g'))
  assert.deepEqual(fs.readdirSync(path('')).toSorted(), ['c', 'g'])
})

test('a file that is unlinked while open lives until its last close', () => {
  const path = join(root, 'doomed')
  const fd = fs.openSync(path, 'w+')
  fs.writeSync(fd, 'before')
  fs.unlinkSync(path)
  fs.writeSync(fd, ' after')
  const buffer = Buffer.alloc(20)
  assert.equal(fs.readSync(fd, buffer, 0, 20, 0), 12)
  assert.equal(buffer.toString('utf8', 0, 12), 'before after')
  assert.equal(fs.fstatSync(fd).nlink, 0)
  fs.closeSync(fd)
  assert.equal(fs.existsSync(path), false)
})

test('writes take set-user-id and set-group-id from executables, so does a change of owner', async () => {
  await shell(
    `echo x >s; chmod 6777 s; setpriv --reuid 1000 --clear-groups sh -c 'echo y >>s'
     test "$(stat -c %a s)" = 777
     chmod 6777 s; setpriv --reuid 1000 --clear-groups truncate -s 0 s; test "$(stat -c %a s)" = 777
     chmod 6777 s; setpriv --reuid 1000 --clear-groups sh -c ': >s'; test "$(stat -c %a s)" = 777
     chmod 6777 s; chown 5:6 s; test "$(stat -c %a:%u:%g s)" = 777:5:6
     chmod 2766 s; chown 7 s; test "$(stat -c %a:%u:%g s)" = 2766:7:6`,
    root,
  )
})

test('permissions are checked for everybody; a set-group-id directory passes its group on', async () => {
  await shell(
    `mkdir shared; chgrp 4242 shared; chmod 2777 shared; mkdir private; chmod 700 private; echo secret >private/file
     setpriv --reuid 1000 --regid 1000 --clear-groups sh -c 'umask 027; mkdir shared/d; : >shared/f; ln -s f shared/l'
     test "$(stat -c %a:%u:%g shared/d)" = 2750:1000:4242; test "$(stat -c %a:%u:%g shared/f)" = 640:1000:4242
     test "$(stat -c %g shared/l)" = 4242
     ! setpriv --reuid 1000 --regid 1000 --clear-groups cat private/file 2>/dev/null
     ! setpriv --reuid 1000 --regid 1000 --clear-groups chmod 777 private 2>/dev/null`,
    root,
  )
})

test('direct I/O, shared mappings and unaligned writes see the same bytes', async () => {
  await shell(
    `head -c 3145728 /dev/urandom >${tools}/random; cp ${tools}/random mixed
     dd if=${tools}/random of=direct bs=512k oflag=direct status=none; cmp direct ${tools}/random
     dd if=direct of=${tools}/back bs=1M iflag=direct status=none; cmp ${tools}/back ${tools}/random
     cat mixed >/dev/null; dd if=${tools}/random of=mixed bs=4096 count=1 seek=3 conv=notrunc oflag=direct status=none
     dd if=${tools}/random of=${tools}/expected bs=1M status=none
     dd if=${tools}/random of=${tools}/expected bs=4096 count=1 seek=3 conv=notrunc status=none; cmp mixed ${tools}/expected`,
    root,
  )
  assert.equal(await call('map', join(root, 'mixed'), 'across the page'), '0')
  const fd = fs.openSync(join(root, 'mixed'), 'r')
  const buffer = Buffer.alloc(15)
  fs.readSync(fd, buffer, 0, 15, 4090)
  fs.closeSync(fd)
  assert.equal(buffer.toString(), 'across the page')
  await shell(
    'fio --name=v --filename=fio --size=8m --rw=randrw --bsrange=512-70k --bs_unaligned --verify=crc32c --ioengine=psync --output=/dev/null',
    root,
  )
})

test('sparse files: 20 GiB, holes, preallocation', async () => {
  const path = join(root, 'sparse')
  await shell(
    `truncate -s 20G sparse; echo end >>sparse; test "$(stat -c %s sparse)" = 21474836484; tail -c 4 sparse | grep -qx end
     test "$(stat -c %b sparse)" -lt 4096; head -c 1000000 /dev/zero | cmp -n 1000000 - sparse
     fallocate -l 1M pre; test "$(stat -c %s pre)" = 1048576; fallocate -n -o 1M -l 1M pre; test "$(stat -c %s pre)" = 1048576
     head -c 100000 /dev/urandom >punched; cp punched ${tools}/punched
     fallocate -p -o 10000 -l 50000 punched; fallocate -p -o 10000 -l 50000 ${tools}/punched; cmp punched ${tools}/punched`,
    root,
  )
  assert.equal(await call('zero', join(root, 'punched'), '99000', '5000'), '0')
  assert.equal(fs.statSync(join(root, 'punched')).size, 104_000)
  assert.equal(await call('collapse', join(root, 'punched')), '95')
  assert.equal(await call('seek', path, '4096', 'hole'), '21474836484')
  fs.truncateSync(path, 10)
  assert.equal(fs.readFileSync(path).length, 10)
  assert.equal(
    errnoOf(() => fs.truncateSync(path, 2 ** 52)),
    'EFBIG',
  )
})

test('listing stays right while names come and go', () => {
  const directory = join(root, 'many')
  fs.mkdirSync(directory)
  const names = Array.from({ length: 3000 }, (_, index) => `file-${index}`)
  for (const name of names) fs.writeFileSync(join(directory, name), '')
  const open = fs.opendirSync(directory, { bufferSize: 32 })
  const seen = new Set<string>()
  for (let count = 0; ; count++) {
    const entry = open.readSync()
    if (entry === null) break
    assert.equal(seen.has(entry.name), false, `${entry.name} came twice`)
    seen.add(entry.name)
    // Everything already seen goes away, and new names appear.
    fs.unlinkSync(join(directory, entry.name))
    if (count % 10 === 0 && count < 3000) fs.writeFileSync(join(directory, `new-${count}`), '')
  }
  open.closeSync()
  for (const name of names) assert.equal(seen.has(name), true, `${name} was skipped`)
  fs.rmSync(directory, { recursive: true })
})

test('locks exclude other processes of this mount', async () => {
  const path = join(root, 'locked')
  fs.writeFileSync(path, 'text')
  const holder = spawn(probe, ['lock', path, '0', '100', '1'], { stdio: ['pipe', 'pipe', 'inherit'] })
  await new Promise((resolve) => holder.stdout.once('data', resolve))
  assert.match(await call('lock', path, '50', '10', '0'), /^(11|13)$/)
  assert.equal(await call('lock', path, '100', '10', '0'), '0')
  holder.stdin.end('\n')
  await ended(holder)
  assert.equal(await call('lock', path, '50', '10', '0'), '0')
  const flock = spawn('flock', [path, 'sh', '-c', 'echo held; read -r line'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  await new Promise((resolve) => flock.stdout.once('data', resolve))
  assert.equal((await program('flock', ['-n', path, 'true'])).status, 1)
  flock.stdin.end('\n')
  await ended(flock)
  assert.equal((await program('flock', ['-n', path, 'true'])).status, 0)
})

test('extended attributes of users are kept; ACLs and security labels are refused', async () => {
  await shell(
    `: >x; setfattr -n user.a -v 1 x; setfattr -n user.b -v 22 x; getfattr -d x | grep -q 'user.b="22"'
     setfattr -x user.a x; ! getfattr -n user.a x 2>/dev/null; test "$(getfattr -d x | grep -c user)" = 1`,
    root,
  )
  const refused = await program('setfattr', ['-n', 'security.thing', '-v', '1', join(root, 'x')])
  assert.match(refused.output, /not supported/)
  const acl = await program('setfattr', [
    '-n',
    'system.posix_acl_access',
    '-v',
    '0sAgAAAA==',
    join(root, 'x'),
  ])
  assert.notEqual(acl.status, 0)
})

test('special files, statfs, O_EXCL, O_APPEND and O_TRUNC', async () => {
  await shell(
    `mkfifo pipe; (echo through >pipe &) ; read -r line <pipe; test "$line" = through
     test "$(stat -f -c %l .)" = 255; test "$(stat -f -c %c .)" -gt "$(stat -f -c %d .)"; df --output=source . | grep -q cairn://memory`,
    root,
  )
  const path = join(root, 'flags')
  fs.writeFileSync(path, 'one')
  assert.equal(
    errnoOf(() => fs.openSync(path, 'wx')),
    'EEXIST',
  )
  fs.appendFileSync(path, 'two')
  assert.equal(fs.readFileSync(path, 'utf8'), 'onetwo')
  fs.closeSync(fs.openSync(path, 'w'))
  assert.equal(fs.statSync(path).size, 0)
  const directory = fs.openSync(root, 'r')
  fs.fsyncSync(directory)
  fs.closeSync(directory)
})

test('a killed client leaves no stuck mount, and the directory can be mounted again', async () => {
  const first = await mountMemory()
  fs.writeFileSync(join(first.directory, 'file'), 'text')
  const held = fs.openSync(join(first.directory, 'file'), 'r') // busy: a plain umount would fail
  first.child.kill('SIGKILL')
  await ended(first.child)
  await until('the watcher unmounts', () => errnoOf(() => fs.readdirSync(first.directory)) === 'none')
  assert.deepEqual(fs.readdirSync(first.directory), [])
  fs.closeSync(held)
  const second = await mountMemory(first.directory)
  fs.writeFileSync(join(second.directory, 'again'), 'text')
  await second.stop()
})

test('a new mount takes the place of a dead one at once, and its old watcher leaves it alone', async () => {
  const first = await mountMemory()
  first.child.kill('SIGKILL')
  await ended(first.child)
  const second = await mountMemory(first.directory)
  fs.writeFileSync(join(second.directory, 'file'), 'text')
  assert.equal(fs.readFileSync(join(second.directory, 'file'), 'utf8'), 'text')
  await second.stop()
})

test('umount says who is busy; stopping ends the connection of programs that do not leave', async () => {
  const busy = await mountMemory()
  const path = join(busy.directory, 'file')
  fs.writeFileSync(path, 'text')
  const held = fs.openSync(path, 'r+')
  assert.match((await program('umount', [busy.directory])).output, /busy/)
  await busy.stop()
  assert.match(busy.log(), /still in use/)
  assert.match(
    errnoOf(() => fs.writeSync(held, 'more')),
    /ENOTCONN|ECONNABORTED/,
  )
  errnoOf(() => fs.closeSync(held)) // says ENOTCONN, and closes
})
