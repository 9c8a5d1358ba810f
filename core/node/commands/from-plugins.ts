/** Commands that plugins bring (hook cli.register), turned into commands of the program. */
import { Argument, type Command, Option } from 'commander'
import type { CommandContext } from '../../cli/context.ts'
import type { CliCommand } from '../../kernel/hooks.ts'
import type { HostHandle } from '../plugins.ts'

export function addPluginCommands(
  program: Command,
  plugins: HostHandle,
  contextOf: (cluster?: string) => CommandContext,
): void {
  const registered = plugins.hooks.cli.register.call().flatMap(({ value }) => value)
  for (const command of registered) addCommand(program, command, contextOf)
  // Not imported for this command, but worth a line in the help.
  for (const { name, description } of plugins.host.commands()) {
    if (program.commands.every((known) => known.name() !== name))
      program.command(name).description(description)
  }
}

function addCommand(
  parent: Command,
  definition: CliCommand,
  contextOf: (cluster?: string) => CommandContext,
): void {
  const command = parent.command(definition.name).description(definition.description)
  command.addHelpText('after', `\nExample:\n  ${definition.example}`)
  for (const argument of definition.arguments ?? []) {
    const name = argument.variadic === true ? `${argument.name}...` : argument.name
    command.addArgument(
      new Argument(argument.optional === true ? `[${name}]` : `<${name}>`, argument.description),
    )
  }
  for (const option of definition.options ?? []) {
    const built = new Option(option.flags, option.description)
    if (option.default !== undefined) built.default(option.default)
    if (option.required === true) built.makeOptionMandatory()
    command.addOption(built)
  }
  for (const nested of definition.commands ?? []) addCommand(command, nested, contextOf)
  if (definition.run === undefined) return
  command.action(async (...given: unknown[]) => {
    const { output } = contextOf()
    const interrupted = new AbortController()
    process.once('SIGINT', () => interrupted.abort())
    const status = await definition.run?.({
      arguments: given.slice(0, -2) as (string | readonly string[] | undefined)[],
      options: { ...command.parent?.opts(), ...command.opts() },
      signal: interrupted.signal,
      output: {
        json: output.json,
        line: (text) => output.line(text),
        document(value, lines) {
          output.document(value)
          for (const line of lines) output.line(line)
        },
        warn: (text) => output.note(text),
      },
    })
    if (typeof status === 'number') process.exitCode = status
  })
}
