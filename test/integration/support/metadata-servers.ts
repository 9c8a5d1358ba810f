/** Metadata servers of a `--no-restart` cluster, one by one: stopped, started by hand, looked at. */
import { spawn } from 'node:child_process'
import path from 'node:path'
import { CAIRN, type Finished, isAlive, runProgram, type TestCluster, until } from './cluster.ts'

export class MetadataServersByHand {
  readonly #cluster: TestCluster
  /** Repository to process id. */
  readonly #started = new Map<string, number>()
  /** Repository to the end of the one that was started there last. */
  readonly #ends = new Map<string, Promise<Finished>>()

  constructor(cluster: TestCluster, after: (end: () => Promise<void>) => void) {
    this.#cluster = cluster
    after(async () => {
      for (const pid of this.#started.values()) if (isAlive(pid)) process.kill(pid, 'SIGKILL')
      await until('all metadata servers are gone', () =>
        [...this.#started.values()].every((pid) => !isAlive(pid)),
      )
    })
  }

  repository(name: string): string {
    return path.join(this.#cluster.directory, name)
  }

  /** As an administrator would, in the background. */
  start(repository: string): void {
    const log = path.join(this.#cluster.directory, 'log', `${path.basename(repository)}-by-hand.log`)
    const child = spawn(CAIRN, [...this.#globals, 'mds', '-r', repository, '--log', log], {
      stdio: ['ignore', 'ignore', 'pipe'],
      detached: true,
    })
    if (child.pid !== undefined) this.#started.set(repository, child.pid)
    let stderr = ''
    child.stderr.on('data', (data) => {
      stderr += String(data)
    })
    this.#ends.set(
      repository,
      new Promise((resolve) => child.once('close', (status) => resolve({ status, stdout: '', stderr }))),
    )
    child.unref()
  }

  /** How one that was started by hand ends by itself. */
  async ownEnd(name: string): Promise<Finished> {
    const repository = this.repository(name)
    const pid = this.#started.get(repository) ?? 0
    await until(`${name} ends by itself`, () => !isAlive(pid))
    this.#started.delete(repository)
    return (await this.#ends.get(repository)) ?? { status: null, stdout: '', stderr: 'was not started' }
  }

  /** To its end: for those that cannot start. */
  run(repository: string): Promise<Finished> {
    return runProgram(CAIRN, [...this.#globals, 'mds', '-r', repository], { timeoutMs: 60_000 })
  }

  /** To the process of 'mds1' …, whoever started it; returns its id. */
  async signal(name: string, signal: NodeJS.Signals): Promise<number> {
    const pid = this.#started.get(this.repository(name)) ?? (await this.#cluster.processId(name))
    process.kill(pid, signal)
    return pid
  }

  /** The process is gone when this resolves. */
  async end(name: string, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const pid = await this.signal(name, signal)
    this.#started.delete(this.repository(name))
    await until(`${name} is gone`, () => !isAlive(pid))
  }

  /** True when so many vote and answer; else what there is. */
  async areActive(count: number): Promise<true | string> {
    const { mds } = await this.#cluster.statistics()
    const states = mds.map(({ id, address, status, lag }) => `${id} ${address} ${status} ${lag}`).join(', ')
    return (mds.length === count && mds.every(({ status }) => status === 'active')) || states
  }

  get #globals(): string[] {
    return ['--etc', path.join(this.#cluster.directory, 'etc'), '-c', 'demo']
  }
}
