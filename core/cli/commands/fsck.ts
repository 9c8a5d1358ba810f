/** `cairn fsck [--repair]`: reads and verifies every page of every replica and compares replicas. */
import type { Command } from 'commander'
import type { CommandContext } from '../context.ts'
import { ExitStatus } from '../exit.ts'
import { checkCluster, type FsckResult, type Problem } from '../fsck.ts'
import type { Output } from '../output.ts'

const PROGRESS_EVERY_MS = 200

const repairedByOrder: readonly Problem['kind'][] = ['bad-page', 'lost-page', 'unreadable']

export function registerFsckCommand(program: Command, contextOf: () => CommandContext): void {
  program
    .command('fsck')
    .option('--repair', 'ask for repair of what is found')
    .description('read and verify every page of every replica, and compare replicas')
    .addHelpText('after', '\nExample:\n  cairn -c demo fsck')
    .action(async (options: { repair?: boolean }) => {
      const context = contextOf()
      const { output } = context
      await context.withAdmin(async (admin) => {
        const repairs = options.repair === true
        const result = await checkCluster(admin, { repairs, onProgress: progress(output) })
        if (repairs) {
          for (const problem of result.problems) {
            // what differs is being repaired already
            if (!repairedByOrder.includes(problem.kind)) continue
            await admin.metadata.call('admin.repair', {
              chunk: problem.chunk,
              server: problem.server,
              reason: `fsck: ${problem.kind}`,
              ...(problem.page === undefined ? {} : { page: problem.page }),
            })
          }
        }
        output.document(result)
        printResult(output, result, repairs)
        if (result.problemCount > 0) process.exitCode = ExitStatus.failed
      })
    })
}

function progress(output: Output): (result: FsckResult) => void {
  if (!output.interactive) return () => {}
  let printedAtMs = 0
  return (result) => {
    const now = Date.now()
    if (now - printedAtMs < PROGRESS_EVERY_MS) return
    printedAtMs = now
    process.stderr.write(`\r${result.chunks} chunks, ${result.pages} pages, ${result.problemCount} problems `)
  }
}

function printResult(output: Output, result: FsckResult, repairing: boolean): void {
  if (output.interactive) process.stderr.write('\r\x1b[K')
  for (const problem of result.problems) {
    const where = problem.page === undefined ? '' : ` page ${problem.page}`
    output.line(
      `chunk ${problem.chunk}${where} of inode ${problem.inode} on CS#${problem.server}: ${problem.kind}, ${problem.detail}`,
    )
  }
  const kept =
    result.problems.length < result.problemCount ? ` (the first ${result.problems.length} are listed)` : ''
  output.line(
    `${result.chunks} chunks, ${result.replicas} replicas, ${result.pages} pages read: ` +
      (result.problemCount === 0 ? 'clean' : `${result.problemCount} problems${kept}`) +
      (result.notCompared > 0 ? `; ${result.notCompared} chunks in use were verified but not compared` : ''),
  )
  if (result.problemCount > 0) {
    output.note(
      repairing
        ? 'cairn: repair was asked for; run fsck again when it is done'
        : 'cairn: run with --repair to have it repaired from good replicas',
    )
  }
}
