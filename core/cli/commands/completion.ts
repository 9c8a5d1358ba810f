/** `cairn completion bash|zsh|fish`: scripts that complete command names and options. */
import type { Command } from 'commander'
import { CairnError } from '../../base/errors.ts'

export function registerCompletionCommand(program: Command): void {
  program
    .command('completion')
    .argument('<shell>', 'bash, zsh or fish')
    .description('prints a completion script for a shell')
    .addHelpText('after', '\nExample:\n  cairn completion bash > /etc/bash_completion.d/cairn')
    .action((shell: string) => {
      process.stdout.write(completionScript(shell, describe(program)))
    })
}

interface Described {
  readonly name: string
  readonly description: string
  readonly options: readonly string[]
}

function describe(program: Command): Described[] {
  return program.commands
    .filter((command) => !('_hidden' in command && command._hidden === true))
    .map((command) => ({
      name: command.name(),
      description: command.description(),
      options: command.options.flatMap((option) =>
        [option.short, option.long].filter((flag) => flag !== undefined && flag !== null),
      ),
    }))
}

/** Throws USAGE for an unknown shell. */
export function completionScript(shell: string, commands: readonly Described[]): string {
  const names = commands.map((command) => command.name).join(' ')
  switch (shell) {
    case 'bash': {
      const cases = commands
        .map((command) => `    ${command.name}) words="${command.options.join(' ')}" ;;`)
        .join('\n')
      return `_cairn() {
  local current="\${COMP_WORDS[COMP_CWORD]}" command="" words="${names}" word
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case " ${names} " in *" $word "*) command="$word"; break ;; esac
  done
  case "$command" in
${cases}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  [ -z "$command" ] || COMPREPLY+=($(compgen -f -- "$current"))
}
complete -o filenames -F _cairn cairn
`
    }
    case 'zsh': {
      const entries = commands
        .map((command) => `    '${command.name}:${quote(command.description)}'`)
        .join('\n')
      return `#compdef cairn
_cairn() {
  local -a commands=(
${entries}
  )
  _arguments '1: :{_describe command commands}' '*: :_files'
}
compdef _cairn cairn
`
    }
    case 'fish':
      return `${commands
        .map(
          (command) =>
            `complete -c cairn -n __fish_use_subcommand -a ${command.name} -d '${quote(command.description)}'`,
        )
        .join('\n')}\n`
    default:
      throw new CairnError('USAGE', `no completion for '${shell}'`, { next: 'use bash, zsh or fish' })
  }
}

function quote(text: string): string {
  return text.replaceAll("'", '’').replaceAll(':', ' -')
}
