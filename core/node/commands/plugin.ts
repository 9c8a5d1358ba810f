/** `cairn plugin list|enable|disable|reload`: on the running processes of this host, through their control sockets. */
import fs from 'node:fs'
import path from 'node:path'
import type { Command } from 'commander'
import { CairnError } from '../../base/errors.ts'
import type { CommandContext } from '../../cli/context.ts'
import { formatTable } from '../../cli/output.ts'
import type { PluginStatus } from '../../kernel/record.ts'
import { connectControl, controlDirectoryOf } from '../control-socket.ts'

interface ProcessPlugins {
  readonly process: string
  readonly plugins: readonly PluginStatus[]
}

export function registerPluginCommands(program: Command, contextOf: () => CommandContext): void {
  const plugin = program.command('plugin').description('plugins of the running processes of this host')
  plugin
    .command('list')
    .description('plugins, process by process')
    .addHelpText('after', '\nExample:\n  cairn plugin list')
    .action(async () => {
      const { output, etc } = contextOf()
      const processes: ProcessPlugins[] = []
      await forEachProcess(controlDirectoryOf(etc), undefined, async (name, ask) => {
        processes.push({ process: name, plugins: await ask<PluginStatus[]>('plugin.list', {}) })
      })
      output.document({ processes })
      const rows = processes.flatMap(({ process: name, plugins }) =>
        plugins.map((status) => [
          name,
          status.name,
          status.version,
          status.state,
          status.startDurationMs === undefined ? '-' : `${Math.round(status.startDurationMs)} ms`,
          status.lastError?.message ?? status.reason ?? '',
        ]),
      )
      for (const line of formatTable(['PROCESS', 'PLUGIN', 'VERSION', 'STATE', 'START', 'LAST'], rows))
        output.line(line)
    })
  for (const [verb, description] of [
    ['enable', 'load and start a plugin: a name, a package or a path'],
    ['disable', 'stop and unload a plugin'],
    ['reload', 'load the code again and restart the plugin'],
  ] as const) {
    plugin
      .command(verb)
      .argument('<name>')
      .option('--process <name>', 'only in this process (default: in all of this host)')
      .description(description)
      .addHelpText('after', `\nExample:\n  cairn plugin ${verb} fuse`)
      .action(async (name: string, options: { process?: string }) => {
        const { output, etc } = contextOf()
        const results: { process: string; plugin: PluginStatus }[] = []
        await forEachProcess(controlDirectoryOf(etc), options.process, async (process, ask) => {
          results.push({ process, plugin: await ask<PluginStatus>(`plugin.${verb}`, { name }) })
        })
        output.document({ results })
        for (const result of results)
          output.line(`${result.process}: ${result.plugin.name} is ${result.plugin.state}`)
      })
  }
}

type Ask = <T>(command: string, parameters: Record<string, unknown>) => Promise<T>

async function forEachProcess(
  directory: string,
  only: string | undefined,
  use: (process: string, ask: Ask) => Promise<void>,
): Promise<void> {
  const names = fs.existsSync(directory)
    ? fs
        .readdirSync(directory)
        .filter((name) => name.endsWith('.sock'))
        .map((name) => name.slice(0, -5))
        .sort()
    : []
  let reached = 0
  for (const name of names) {
    if (only !== undefined && only !== name) continue
    const connection = await connectControl(path.join(directory, `${name}.sock`))
    if (connection === null) {
      forgetDead(directory, name)
      continue
    }
    reached += 1
    try {
      await use(name, (command, parameters) => connection.client.request(command, parameters))
    } finally {
      connection.close()
    }
  }
  if (reached === 0) {
    throw new CairnError(
      'NOT_FOUND',
      only === undefined ? `no Cairn process of ${directory} is running` : `no process '${only}' is running`,
      {
        next: 'name the configuration root with --etc',
      },
    )
  }
}

/** Sockets of clients carry their process id: one that was killed leaves its file behind. */
function forgetDead(directory: string, name: string): void {
  const pid = /-(\d+)$/.exec(name)?.[1]
  if (pid !== undefined && !fs.existsSync(`/proc/${pid}`))
    fs.rmSync(path.join(directory, `${name}.sock`), { force: true })
}
