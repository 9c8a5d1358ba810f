/**
 * The version of Cairn before this one, out of the history of this repository: its sources in a folder of their
 * own, with the packages of this tree. It is the version that updates come from; at a release, the commit of the
 * release before goes here.
 */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { must, runProgram } from './cluster.ts'

/** Level 1: it announces none (core/metadata/state/feature-levels.ts). */
const PREVIOUS_COMMIT = 'a73e1b26c8f0b4629f06a390c56192cd3b4814ae'

const PROJECT = path.join(import.meta.dirname, '..', '..', '..')
/** Links to the workspaces: of each tree its own. */
const OWN_PACKAGES = '@cairn'

export interface PreviousVersion {
  /** Its `cairn` program. */
  readonly cairn: string
  /** One of its modules, which has the face that this tree's module at the same place has. */
  load(module: string): Promise<unknown>
}

export async function previousVersion(after: (end: () => Promise<void>) => void): Promise<PreviousVersion> {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cairn-previous-'))
  after(() => fs.promises.rm(directory, { recursive: true, force: true }))
  const isKnown = () => runProgram('git', ['-C', PROJECT, 'cat-file', '-e', `${PREVIOUS_COMMIT}^{commit}`])
  let known = await isKnown()
  if (known.status !== 0) {
    // A shallow clone knows where it came from.
    await runProgram('git', ['-C', PROJECT, 'fetch', '--quiet', '--depth=1', 'origin', PREVIOUS_COMMIT])
    known = await isKnown()
  }
  if (known.status !== 0)
    throw new Error(
      `the previous version, commit ${PREVIOUS_COMMIT}, is not in the history at ${PROJECT}: ` +
        `this test needs a full clone (git fetch --unshallow)\n${known.stderr}`,
    )
  const archive = path.join(directory, 'tree.tar')
  await must('git', ['-C', PROJECT, 'archive', '-o', archive, PREVIOUS_COMMIT])
  await must('tar', ['-xf', archive, '-C', directory])
  linkPackages(path.join(PROJECT, 'node_modules'), path.join(directory, 'node_modules'))
  return {
    cairn: path.join(directory, 'scripts', 'cairn'),
    load: (module) => import(path.join(directory, module)) as Promise<unknown>,
  }
}

function linkPackages(from: string, to: string): void {
  fs.mkdirSync(to)
  for (const name of fs.readdirSync(from)) {
    if (name === '.cache') continue
    if (name === OWN_PACKAGES)
      fs.cpSync(path.join(from, name), path.join(to, name), { recursive: true, verbatimSymlinks: true })
    else fs.symlinkSync(path.join(from, name), path.join(to, name))
  }
}
