/** The seams that the experiment build of the bench replaces are all there: else it would compare equal programs. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import path from 'node:path'
import test from 'node:test'

const root = path.join(import.meta.dirname, '..', '..')

test('the preload of the experiment build finds what it takes out', () => {
  const preload = path.join(root, 'bench', 'experiment', 'preload.ts')
  const main = path.join(root, 'core', 'node', 'main.ts')
  const { status, stderr } = spawnSync(process.execPath, ['--import', preload, main, '--version'], {
    encoding: 'utf8',
  })
  assert.equal(status, 0, stderr)
})
