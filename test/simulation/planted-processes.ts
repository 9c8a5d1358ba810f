/** Runs planted bugs in processes of their own, where the line or the method is another one from the start. */
import { execFile, spawnSync } from 'node:child_process'
import path from 'node:path'
import { promisify } from 'node:util'
import { type FoundByTest, LINE_VARIABLE, LOADER_PATH, type PlantedLine } from './planted-line.ts'

const core = path.join(import.meta.dirname, '../../core')
const TIME_LIMIT_MS = 600_000

export interface Found {
  readonly seed: number
  readonly failure: string
}

function withLine(planted: Pick<PlantedLine, 'key'> | null, parameters: readonly string[]) {
  const flags = planted === null ? [] : ['--import', LOADER_PATH]
  const more = planted === null ? {} : { [LINE_VARIABLE]: planted.key }
  const { NODE_TEST_CONTEXT: _, ...environment } = process.env
  return { parameters: [...flags, ...parameters], env: { ...environment, ...more } }
}

async function run(planted: Pick<PlantedLine, 'key'> | null, parameters: readonly string[]) {
  const call = withLine(planted, parameters)
  const { stdout } = await promisify(execFile)(process.execPath, call.parameters, {
    env: call.env,
    timeout: TIME_LIMIT_MS,
    maxBuffer: 64 * 1024 * 1024,
  }).catch((error: unknown) => {
    // a test that fails, as it should, is told by what it prints
    const { code, stdout: printed, stderr } = error as { code?: number; stdout?: string; stderr?: string }
    if (code === 1 && printed?.includes('TAP version') === true) return { stdout: printed }
    throw new Error(`planted ${planted?.key}: ${stderr ?? String(error)}`, { cause: error })
  })
  return stdout
}

/** The first seed that finds it; `isLine`: it is planted as the process loads the module. */
export async function findPlanted(key: string, isLine: boolean): Promise<Found | null> {
  const script = path.join(import.meta.dirname, 'find-planted.ts')
  return JSON.parse(await run(isLine ? { key } : null, [script, key])) as Found | null
}

/** Names of the tests that fail. */
export async function failingTests(planted: PlantedLine, { test, pattern }: FoundByTest): Promise<string[]> {
  const flags = ['--test-reporter=tap', `--test-name-pattern=${pattern}`]
  const printed = await run(planted, [...flags, path.join(core, test)])
  return [...printed.matchAll(/^not ok \d+ - (.*)$/gm)].map(([, name = '']) => name)
}

/** The situations that the tests of a file, below `core`, visit. */
export async function visitedBy(file: string): Promise<string[]> {
  const flags = ['--import', path.join(import.meta.dirname, 'print-marks.ts')]
  const { NODE_TEST_CONTEXT: _, ...env } = process.env
  const { stderr } = await promisify(execFile)(process.execPath, [...flags, path.join(core, file)], {
    env,
    timeout: TIME_LIMIT_MS,
  })
  return JSON.parse(/^visited: (.*)$/m.exec(stderr)?.[1] ?? '[]') as string[]
}

/** Starts this very process again, with the line planted, and ends it as that one ended. */
export function againWithLine(planted: PlantedLine): void {
  if (process.env[LINE_VARIABLE] === planted.key) return
  const call = withLine(planted, process.argv.slice(1))
  const { status } = spawnSync(process.execPath, call.parameters, { env: call.env, stdio: 'inherit' })
  process.exit(status ?? 1)
}
