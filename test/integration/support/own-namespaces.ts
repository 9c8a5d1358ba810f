/**
 * A program that runs itself again inside new namespaces of network, mounts and processes, with an empty
 * directory for everything it makes: however it ends, nothing of it is left behind.
 */
import { spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { must } from './programs.ts'

/** Names of network namespaces are files here; a run mounts its own on top. */
const NAMES_DIRECTORY = '/run/netns'
const COMPILE_CACHE = path.join(import.meta.dirname, '../../../node_modules/.cache/cairn')

/**
 * The whole of such a program: outside it starts itself again, inside (`--inside DIRECTORY`) it does its work. Ends the
 * process, with the status that `work` gives.
 */
export async function workInOwnNamespaces(
  name: string,
  program: string,
  inside: string | undefined,
  work: (directory: string) => Promise<number>,
): Promise<never> {
  try {
    if (inside === undefined) process.exit(await runInOwnNamespaces(name, program))
    await enterOwnNamespaces()
    process.exit(await work(inside))
  } catch (error) {
    const reason = error instanceof Error ? (error.stack ?? error.message) : String(error)
    process.stderr.write(`${name}: ${reason}\n`)
    process.exit(1)
  }
}

/**
 * Runs `program` with the parameters of this process and `--inside DIRECTORY`; resolves with its status. New
 * namespaces end with their first process, and that one with us. CAIRN_KEEP keeps the directory.
 */
export async function runInOwnNamespaces(name: string, program: string): Promise<number> {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), `cairn-${name}-`))
  fs.mkdirSync(NAMES_DIRECTORY, { recursive: true })
  const namespaces = ['--net', '--mount', '--pid', '--fork', '--mount-proc', '--kill-child']
  const again = [process.execPath, program, ...process.argv.slice(2), '--inside', directory]
  const child = spawn('unshare', [...namespaces, ...again], {
    stdio: ['pipe', 'inherit', 'inherit'],
    // As scripts/cairn has it: what is started again and again starts in half the time.
    env: { NODE_COMPILE_CACHE: COMPILE_CACHE, ...process.env, TMPDIR: directory },
  })
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.stdin?.end())
  const status = await new Promise<number>((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (code) => resolve(code ?? 1))
  })
  if (process.env['CAIRN_KEEP'] !== undefined) process.stderr.write(`kept: ${directory}\n`)
  else fs.rmSync(directory, { recursive: true, force: true })
  return status
}

/** Called inside, first: when the process outside ends, or is told to, this one ends too. */
export async function enterOwnNamespaces(): Promise<void> {
  process.stdin.once('end', () => process.exit(130)).resume()
  process.once('exit', endFuseMounts)
  // Shared memory has names, too: libfaketime's are process ids, which two namespaces have in common.
  await must('mount', ['-t', 'tmpfs', 'none', '/dev/shm'])
}

/**
 * A process that waits for an answer of a FUSE mount, and the one of the mount that waits for what that holds, end
 * by no signal: the mount has to go first.
 */
function endFuseMounts(): void {
  for (const line of fs.readFileSync('/proc/self/mounts', 'utf8').split('\n')) {
    const [, mountPoint = '', type = ''] = line.split(' ')
    if (type.startsWith('fuse')) spawnSync('umount', ['-f', mountPoint])
  }
}
