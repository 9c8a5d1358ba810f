/**
 * Hosts for tests of one machine: a configuration root of its own each, and `cairn` run with it, where wanted
 * inside a network namespace. Ends every process it started, by its id.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { CAIRN, type Finished, isAlive, must, runProgram, until } from './cluster.ts'

type After = (end: () => Promise<void>) => void

export class TestHost {
  readonly directory: string
  /** Put in front of every command: enters a namespace. */
  readonly #prefix: readonly string[]
  readonly #children: ChildProcess[] = []

  /** Made before its servers, so that it ends after them. */
  constructor(after: After, plugins: Readonly<Record<string, unknown>>, prefix: readonly string[] = []) {
    this.directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cairn-host-'))
    this.#prefix = prefix
    fs.mkdirSync(this.etc)
    const enabled = ['fuse', ...Object.keys(plugins)]
    fs.writeFileSync(path.join(this.etc, 'cairn.json'), JSON.stringify({ plugins: { enabled, ...plugins } }))
    after(async () => {
      await this.#end()
      if (process.env['CAIRN_KEEP'] === undefined) fs.rmSync(this.directory, { recursive: true, force: true })
    })
  }

  get etc(): string {
    return path.join(this.directory, 'etc')
  }

  path(name: string): string {
    return path.join(this.directory, name)
  }

  /** A file with a password. */
  passwordFile(password: string): string {
    const file = this.path('password')
    fs.writeFileSync(file, `${password}\n`, { mode: 0o600 })
    return file
  }

  /** Creates a cluster and starts its metadata server; resolves with the process. */
  async startCluster(cluster: string, address: string, password: string): Promise<ChildProcess> {
    const repository = this.path('mds')
    const making = ['make-mds', '-I', '-a', address, '-r', repository]
    await this.cairn('-c', cluster, ...making, '--password-file', this.passwordFile(password))
    return this.spawnCairn('-c', cluster, 'mds', '-r', repository).child
  }

  /** Enables a discovery plugin that leaves a file behind when it is imported. */
  addLoudPlugin(): { readonly importedFile: string } {
    const directory = this.path('etc/loud')
    const importedFile = this.path('imported')
    fs.mkdirSync(directory)
    const cairn = {
      engines: { core: '^0.1.0' },
      roles: ['cli'],
      taps: ['discovery.resolve', 'discovery.list'],
    }
    fs.writeFileSync(
      path.join(directory, 'package.json'),
      JSON.stringify({ name: 'loud', type: 'module', exports: './index.js', cairn }),
    )
    fs.writeFileSync(
      path.join(directory, 'index.js'),
      `import fs from 'node:fs'
fs.writeFileSync(${JSON.stringify(importedFile)}, '')
export default {
  apply(kernel) {
    kernel.hooks.discovery.list.tap(() => [{ method: 'a megaphone', clusters: [], atMs: 0 }])
  },
}
`,
    )
    const file = path.join(this.etc, 'cairn.json')
    const config = JSON.parse(fs.readFileSync(file, 'utf8')) as { plugins: { enabled: string[] } }
    config.plugins.enabled.push('./loud')
    fs.writeFileSync(file, JSON.stringify(config))
    return { importedFile }
  }

  writeBootstrapList(cluster: string, ...addresses: readonly string[]): void {
    const directory = path.join(this.etc, 'clusters', cluster)
    fs.mkdirSync(directory, { recursive: true })
    fs.writeFileSync(path.join(directory, 'bs.list'), addresses.map((address) => `${address}\n`).join(''))
  }

  cairn(...parameters: readonly string[]): Promise<string> {
    const [program = CAIRN, ...rest] = this.#command(parameters)
    return must(program, rest)
  }

  tryCairn(...parameters: readonly string[]): Promise<Finished> {
    const [program = CAIRN, ...rest] = this.#command(parameters)
    return runProgram(program, rest)
  }

  /** Runs in the background until `stop` or the end of the test. */
  spawn(program: string, parameters: readonly string[]): { child: ChildProcess; output: () => string } {
    const [first = program, ...rest] = [...this.#prefix, program, ...parameters]
    const child = spawn(first, rest, { stdio: ['ignore', 'pipe', 'pipe'] })
    this.#children.push(child)
    let text = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (data) => {
        text += String(data)
      })
    }
    return { child, output: () => text }
  }

  spawnCairn(...parameters: readonly string[]): { child: ChildProcess; output: () => string } {
    return this.spawn(CAIRN, ['--etc', this.etc, ...parameters])
  }

  async stop(child: ChildProcess, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const { pid } = child
    if (pid === undefined || !isAlive(pid)) return
    process.kill(pid, signal)
    await until(`process ${pid} is gone`, () => !isAlive(pid), 20_000)
  }

  #command(parameters: readonly string[]): string[] {
    return [...this.#prefix, CAIRN, '--etc', this.etc, ...parameters]
  }

  async #end(): Promise<void> {
    // Newest first: clients before their servers.
    for (const child of this.#children.toReversed()) await this.stop(child, 'SIGKILL')
  }
}

/** Two network namespaces with a cable between them: 10.77.0.1 and 10.77.0.2. */
export async function twoNamespaces(after: After): Promise<readonly [string[], string[]]> {
  const [one, two] = ['a', 'b'].map((letter) => `cairn-${process.pid}-${letter}`) as [string, string]
  after(async () => {
    for (const name of [one, two]) await runProgram('ip', ['netns', 'delete', name])
  })
  for (const name of [one, two]) {
    await must('ip', ['netns', 'add', name])
    await must('ip', ['-n', name, 'link', 'set', 'lo', 'up'])
  }
  await must('ip', [
    'link',
    'add',
    'eth7',
    'netns',
    one,
    'type',
    'veth',
    'peer',
    'name',
    'eth7',
    'netns',
    two,
  ])
  for (const [name, address] of [
    [one, '10.77.0.1/24'],
    [two, '10.77.0.2/24'],
  ] as const) {
    await must('ip', ['-n', name, 'address', 'add', address, 'dev', 'eth7'])
    await must('ip', ['-n', name, 'link', 'set', 'eth7', 'up'])
    await must('ip', ['-n', name, 'route', 'add', 'default', 'dev', 'eth7'])
  }
  // Not `ip netns exec`: mounts made below would be seen nowhere else.
  return [one, two].map((name) => ['nsenter', `--net=/run/netns/${name}`]) as [string[], string[]]
}
