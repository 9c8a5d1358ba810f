/**
 * What crosses to the client library and when: close-to-open, invalidation by others, operations that
 * are held, signals. The mount runs in this process, so everything that uses it is a child process
 * (a synchronous call from here, a spawn with such a cwd included, would wait for itself).
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { rmdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { type Mount, mountFuse } from '../mount/mount.ts'
import { type MountSettings, defaultSettings } from '../options.ts'
import { ended, makeDirectory, program, shell, until } from '../testing/harness.ts'
import { MemoryClient } from '../testing/memory-client.ts'
import type { IoKind } from '../testing/memory-node.ts'
import type { MountLogger } from '../protocol/types.ts'

/** Long: whatever becomes visible before it was told, not timed out. */
const NEVER_MS = 3_600_000

interface Mounted {
  readonly client: MemoryClient
  readonly directory: string
  readonly warnings: string[]
}

async function withMount(
  settings: Partial<MountSettings>,
  work: (mounted: Mounted) => Promise<void>,
): Promise<void> {
  const client = new MemoryClient()
  const directory = makeDirectory()
  const warnings: string[] = []
  const logger: MountLogger = {
    debug: () => {},
    info: () => {},
    warn: (message) => void warnings.push(message),
    error: (message) => void warnings.push(message),
  }
  const mount: Mount = await mountFuse({
    client,
    directory,
    source: 'cairn://memory',
    settings: { ...defaultSettings, entryTimeoutMs: NEVER_MS, attributesTimeoutMs: NEVER_MS, ...settings },
    logger,
  })
  try {
    await work({ client, directory, warnings })
  } finally {
    client.letGo()
    await mount.unmount(2000)
    rmdirSync(directory)
  }
}

function hold(client: MemoryClient, ...kinds: IoKind[]): { waiting: Set<{ run: () => void }> } {
  const held = { kinds: new Set(kinds), waiting: new Set<{ run: () => void }>() }
  client.options.hold = held
  return held
}

const cat = async (directory: string) => (await program('cat', [join(directory, 'file')])).output
const size = async (directory: string) =>
  (await program('stat', ['-c', '%s', join(directory, 'file')])).output

test('pages outlive close and re-open; a change by another client is seen at the next open', async () => {
  await withMount({}, async ({ client, directory }) => {
    await shell('printf first >file', directory)
    const { counts } = client.options
    assert.equal(await cat(directory), 'first')
    const readsBefore = counts.read
    assert.equal(await cat(directory), 'first')
    assert.equal(counts.read, readsBefore, 'served from the page cache')
    const { inode } = await client.fileSystem.resolve('/file')
    client.fileSystem.externalWrite(inode, 'second, longer')
    // Nobody told this mount: close-to-open must be enough.
    assert.equal(await cat(directory), 'second, longer')
    assert.equal(await size(directory), '14')
    client.fileSystem.externalWrite(inode, 'third')
    assert.equal(await cat(directory), 'third')
  })
})

test('invalidations drop attributes, names and pages of open files', async () => {
  await withMount({}, async ({ client, directory }) => {
    await shell('printf first >file', directory)
    assert.equal(await size(directory), '5')
    const { inode } = await client.fileSystem.resolve('/file')
    const reader = spawn(
      'sh',
      ['-c', `cd '${directory}'; exec 3<file; cat <&3; while read -r _; do cat file; stat -c %s file; done`],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    )
    let seen = ''
    reader.stdout.on('data', (data: Buffer) => {
      seen += data.toString('utf8')
    })
    await until('the reader has read', () => seen === 'first')
    client.fileSystem.externalWrite(inode, 'other')
    assert.equal(await size(directory), '5', 'the same size: attributes are still cached')
    client.fileSystem.externalWrite(inode, 'another')
    client.invalidate({ inodes: [inode] })
    await until('the new size is seen', async () => (await size(directory)) === '7')
    reader.stdin.write('\n')
    await until('the reader sees it', () => seen === 'firstanother7\n')
    reader.stdin.end()
    await ended(reader)
    await client.fileSystem.rename(1, 'file', 1, 'moved', 'replace')
    assert.equal(await size(directory), '7', 'the name is cached')
    client.invalidate({ entries: [{ parent: 1, name: 'file' }] })
    await until('the name is gone', async () => /No such file/.test(await size(directory)))
    await client.fileSystem.rename(1, 'moved', 1, 'file', 'replace')
    client.invalidate({ all: true })
    await until('everything is asked again', async () => (await size(directory)) === '7')
  })
})

test('close publishes once per writer, readers publish nothing, fsync flushes', async () => {
  await withMount({}, async ({ client, directory }) => {
    const { counts } = client.options
    await shell('printf text >file', directory)
    assert.equal(counts.publish, 1)
    await cat(directory)
    await shell('exec 3<>file; exec 3>&-', directory)
    assert.equal(counts.publish, 1, 'nothing was written')
    assert.equal(counts.flush, 0)
    await shell('dd if=/dev/zero of=file bs=4k count=2 conv=fsync status=none', directory)
    assert.equal(counts.flush, 1)
    assert.equal(counts.publish, 2, 'the times may lag a tick behind an fsync')
  })
})

test('a held write holds only its program; a signal ends the wait, and the mount stays usable', async () => {
  await withMount({}, async ({ client, directory }) => {
    await shell('printf text >other', directory)
    const held = hold(client, 'write')
    const writers: ChildProcess[] = []
    for (let count = 0; count < 100; count++) {
      writers.push(spawn('sh', ['-c', `printf x >'${directory}/file-${count}'`], { stdio: 'ignore' }))
    }
    await until('all writes are held', () => held.waiting.size === writers.length)
    assert.equal((await program('cat', [join(directory, 'other')])).output, 'text')
    for (const writer of writers) writer.kill('SIGKILL')
    await Promise.all(writers.map(ended))
    await until('all waits have ended', () => held.waiting.size === 0)
    client.letGo()
    await shell('printf again >file-0; grep -q again file-0', directory)
  })
})

test('pages that cannot be dropped, since their read is held, hold up no open (A3, L9)', async () => {
  await withMount({}, async ({ client, directory }) => {
    await shell('printf first >file; printf text >other; cat other', directory)
    const { inode } = await client.fileSystem.resolve('/file')
    const other = await client.fileSystem.resolve('/other')
    client.fileSystem.externalWrite(inode, 'second')
    const held = hold(client, 'read')
    const reader = spawn('cat', [join(directory, 'file')], { stdio: 'ignore' })
    await until('the read is held', () => held.waiting.size === 1)
    // The helper thread waits in the kernel for the page of that read.
    client.invalidate({ inodes: [inode] })
    client.fileSystem.externalWrite(other.inode, 'more text')
    const opened = await program('timeout', ['20', 'sh', '-c', `exec 3<'${directory}/other' && echo opened`])
    assert.equal(opened.output, 'opened')
    client.letGo()
    assert.equal(await ended(reader), 0)
    await until('the new pages are read', async () => (await cat(directory)) === 'second')
  })
})

test('large held writes stop the reading of requests, and everything goes on afterwards', async () => {
  await withMount({}, async ({ client, directory, warnings }) => {
    const held = hold(client, 'write')
    const writers: ChildProcess[] = []
    for (let count = 0; count < 80; count++) {
      const parameters = ['if=/dev/zero', `of=${directory}/big-${count}`, 'bs=1M', 'count=2', 'status=none']
      writers.push(spawn('dd', parameters, { stdio: 'ignore' }))
    }
    // 64 buffers, some of them kept by readers: not all of the writes can be in hand.
    await until('the buffers are used up', () => held.waiting.size >= 48)
    client.letGo()
    assert.deepEqual(new Set(await Promise.all(writers.map(ended))), new Set([0]))
    await shell('for file in big-*; do test "$(stat -c %s "$file")" = 2097152; done', directory)
    assert.deepEqual(warnings, [])
  })
})

test('no space is an error, or with hold-on-nospace a wait for space', async () => {
  await withMount({}, async ({ client, directory }) => {
    client.options.bytesMax = 4096
    const full = await program('dd', ['if=/dev/zero', `of=${directory}/file`, 'bs=8k', 'count=1'])
    assert.match(full.output, /No space left/)
  })
  await withMount({ holdOnNoSpace: true }, async ({ client, directory }) => {
    client.options.bytesMax = 4096
    const { counts } = client.options
    const writer = spawn('dd', ['if=/dev/zero', `of=${directory}/file`, 'bs=8k', 'count=1', 'status=none'])
    await until('it was tried twice', () => counts.write >= 2)
    assert.equal(writer.exitCode, null)
    client.options.bytesMax = undefined
    assert.equal(await ended(writer), 0)
    assert.equal(await size(directory), '8192')
  })
})

test('what the kernel forgets is forgotten here: inodes and open files do not pile up', async () => {
  await withMount({}, async ({ client, directory }) => {
    await shell('for i in $(seq 500); do echo $i >file-$i; done; cat file-* >/dev/null; rm file-*', directory)
    await until('every node is gone', () => client.fileSystem.nodeCount === 1)
  })
})
