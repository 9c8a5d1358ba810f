// Proves that the formats of log and rows stay what docs/formats/metadata.md says: the golden file of each
// version is read by today's code, and today's code writes the newest one byte for byte.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { NamespaceBench, type ShortCommand } from '../namespace/namespace-bench.ts'
import type { Command, LogCommand } from '../state/commands.ts'
import { decodeLogEntry, encodeLogEntry } from './codec.ts'

interface Golden {
  /** Hexadecimal. */
  readonly entries: readonly string[]
  /** [table, key, value], sorted. */
  readonly rows: readonly (readonly [string, string, string])[]
}

const golden = JSON.parse(readFileSync(new URL('testdata/format-1.json', import.meta.url), 'utf8')) as Golden

/** One of everything a row can hold. */
function commands(): Command[] {
  const owner = { mode: 0o640, uid: 1000, gid: 100 }
  const value = Buffer.from([1, 2, 255])
  const attributes = { replicasNormal: 3, failureDomain: 'rack', tier: 2 } as const
  const file = { parent: 1, name: 'file', ...owner, exclusive: true, lease: true }
  const short: ShortCommand[] = [
    { type: 'attr.set', inode: 1, recursive: false, attributes },
    { type: 'fs.create', ...file },
    { type: 'fs.mknod', fileType: 'directory', parent: 1, name: 'dir', ...owner, device: 0 },
    { type: 'fs.mknod', fileType: 'block-device', parent: 3, name: 'sda', ...owner, device: 0x801 },
    { type: 'fs.symlink', parent: 3, name: 'sym "é"', target: '../file', uid: 5, gid: 6 },
    { type: 'fs.link', inode: 2, parent: 3, name: 'second name' },
    { type: 'fs.setxattr', inode: 2, name: 'user.colour', value, mode: 'create' },
    { type: 'fs.setattr', inode: 2, accessSeconds: -1, accessNanoseconds: 999_999_999 },
    { type: 'fs.rename', parent: 1, name: 'file', newParent: 3, newName: 'sda', mode: 'replace' },
    { type: 'fs.rmdir', parent: 1, name: 'dir' },
  ]
  const open: Command = { type: 'session.open', name: 'mount', host: 'host', kind: 'fuse', secret: 'abc' }
  const requests = short.map((command, position) => {
    const mutation = { sequence: position + 1, acknowledgedBelow: Math.max(0, position - 2) }
    return { ...command, session: 1, mutation } as Command
  })
  return [open, ...requests]
}

function entryOf(command: Command, position: number): LogCommand {
  return { command, wallSeconds: 1_700_000_000 + position, wallNanoseconds: 42 }
}

function rowsOf(bench: NamespaceBench): [string, string, string][] {
  bench.row(2).zeroFrom = 4_097
  bench.row(2).sizeLimit = 67_108_864
  bench.state.config.set('mds.session_tout', 5_000)
  bench.state.condemned.set({ chunk: 9, server: 3, versionMax: 7 })
  bench.state.recordEvent({ timeMs: 1.5, system: 'CS', severity: 'warn', code: 'X', message: 'a "b"' })
  const rows: [string, string, string][] = []
  for (const table of bench.state.tables()) {
    for (const [key, value] of table.rows()) rows.push([table.name, key, value])
  }
  return rows.toSorted((left, right) => (left.join('\0') < right.join('\0') ? -1 : 1))
}

test('today writes the golden entries and rows of its version', () => {
  const entries = commands().map((command, position) =>
    encodeLogEntry(entryOf(command, position), position + 1).toString('hex'),
  )
  assert.deepEqual(entries, golden.entries)
  const bench = new NamespaceBench({ empty: true, withSessions: true })
  for (const [position, command] of commands().entries()) {
    const result = bench.machine.apply(entryOf(command, position), position + 1)
    if (position < 10) assert.ok('ok' in result, JSON.stringify(result))
  }
  assert.deepEqual(rowsOf(bench), golden.rows)
})

test('the golden entries, applied, give the golden rows', () => {
  const bench = new NamespaceBench({ empty: true, withSessions: true })
  for (const [position, hex] of golden.entries.entries()) {
    bench.machine.apply(decodeLogEntry(Buffer.from(hex, 'hex'), position + 1), position + 1)
  }
  assert.deepEqual(rowsOf(bench), golden.rows)
})

test('the golden rows, loaded, are written back as they were', () => {
  const bench = new NamespaceBench({ empty: true })
  for (const [table, key, value] of golden.rows) bench.state.loadRow(table, key, value)
  bench.state.finishLoad()
  const rows: string[] = []
  for (const table of bench.state.tables()) {
    for (const [key, value] of table.rows()) rows.push([table.name, key, value].join('\0'))
  }
  assert.deepEqual(
    rows.toSorted(),
    golden.rows.map((row) => row.join('\0')),
  )
})
