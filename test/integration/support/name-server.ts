/** A real name server for one test: bind9's `named` in the foreground on a loopback port, everything in one folder. */
import { type ChildProcess, spawn } from 'node:child_process'
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { isAlive, until } from './cluster.ts'

export interface Zone {
  /** What stands in the zone file, behind SOA, NS and the address of the server. */
  readonly records: string
  readonly transfer: 'any' | 'none'
}

export class NameServer {
  readonly port: number
  readonly #directory: string
  readonly #zones: Record<string, Zone>
  #child: ChildProcess | undefined
  #log = ''
  #serial = 1

  private constructor(directory: string, port: number, zones: Record<string, Zone>) {
    this.#directory = directory
    this.port = port
    this.#zones = zones
  }

  static async start(
    after: (end: () => Promise<void>) => void,
    zones: Readonly<Record<string, Zone>>,
  ): Promise<NameServer> {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cairn-named-'))
    const server = new NameServer(directory, await freePort(), { ...zones })
    after(async () => {
      await server.stop()
      fs.rmSync(directory, { recursive: true, force: true })
    })
    await server.start()
    return server
  }

  get address(): string {
    return `127.0.0.1:${this.port}`
  }

  async start(): Promise<void> {
    this.#writeFiles()
    this.#log = ''
    const child = spawn('named', ['-g', '-n', '1', '-c', path.join(this.#directory, 'named.conf')], {
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    this.#child = child
    child.stderr.on('data', (data) => {
      this.#log += String(data)
    })
    await until('named runs', () => {
      if (child.exitCode !== null) throw new Error(`named ended: ${this.#log.slice(-2000)}`)
      return / running$/m.test(this.#log) || this.#log.slice(-200)
    })
  }

  async stop(): Promise<void> {
    const pid = this.#child?.pid
    if (pid === undefined || !isAlive(pid)) return
    process.kill(pid, 'SIGKILL')
    await until('named is gone', () => !isAlive(pid))
  }

  /** Replaces a zone and waits until the server has it. */
  async change(name: string, records: string): Promise<void> {
    this.#zones[name] = { transfer: 'any', ...this.#zones[name], records }
    this.#serial += 1
    this.#writeFiles()
    this.#child?.kill('SIGHUP')
    const loaded = `zone ${name}/IN: loaded serial ${this.#serial}`
    await until('named has loaded the zone', () => this.#log.includes(loaded) || this.#log.slice(-300))
  }

  #writeFiles(): void {
    const zones = Object.entries(this.#zones).map(([name, { records, transfer }]) => {
      const head = `$ORIGIN ${name}.\n$TTL 1H\n@ IN SOA ns rname.invalid. (${this.#serial} 5H 10M 1D 3H)\n  NS ns\nns A 127.0.0.1\n`
      fs.writeFileSync(path.join(this.#directory, `${name}.zone`), `${head}${records}\n`)
      return `zone "${name}" { type primary; file "${name}.zone"; allow-transfer { ${transfer}; }; };`
    })
    const options = [
      `directory "${this.#directory}";`,
      `pid-file "${this.#directory}/named.pid";`,
      `session-keyfile "${this.#directory}/session.key";`,
      `listen-on port ${this.port} { 127.0.0.1; };`,
      'listen-on-v6 { none; };',
      'recursion no;',
      'dnssec-validation no;',
      'empty-zones-enable no;',
      'notify no;',
    ]
    fs.writeFileSync(
      path.join(this.#directory, 'named.conf'),
      `options {\n${options.join('\n')}\n};\ncontrols { };\n${zones.join('\n')}\n`,
    )
  }
}

/** One that nobody listened on a moment ago. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = net.createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as net.AddressInfo
      server.close(() => resolve(port))
    })
  })
}
