/** Options of the programs in test/: parsed, or the program ends with status 2, the problem and how it is used. */
import { parseArgs, type ParseArgsOptionsConfig } from 'node:util'

const help = { help: { type: 'boolean', default: false } } as const

export function commandLine<const Options extends ParseArgsOptionsConfig>(
  program: string,
  usage: string,
  options: Options,
) {
  const fail = (problem: string): never => {
    process.stderr.write(`${program}: ${problem}\n\n${usage}`)
    process.exit(2)
  }
  const parsed = () => {
    try {
      return parseArgs<{ options: Options & typeof help }>({ options: { ...options, ...help } })
    } catch (error) {
      return fail((error as Error).message)
    }
  }
  const { values } = parsed()
  if ((values as { help?: boolean }).help === true) {
    process.stdout.write(usage)
    process.exit(0)
  }
  /** Of what `--option` names, by commas. */
  const choices = <Name extends string>(text: string, option: string, all: readonly Name[]): Name[] =>
    text
      .split(',')
      .map((word) => all.find((name) => name === word) ?? fail(`--${option}: there is no ${word}`))
  const whole = (text: string, option: string, minimum = 0): number => {
    const value = Number(text)
    const isWhole = text !== '' && Number.isSafeInteger(value) && value >= minimum
    return isWhole ? value : fail(`--${option} ${text} is no whole number from ${minimum} on`)
  }
  const positive = (text: string, option: string): number => {
    const value = Number(text)
    return value > 0 ? value : fail(`--${option} ${text} is no number above 0`)
  }
  return { values, fail, choices, whole, positive }
}
