/**
 * The check of `cairn fsck`: has every chunk checked by the master, as scrubbing does (metadata/control/scrub/):
 * every page of every replica is read and verified, and the replicas of a chunk that nobody writes are compared
 * (rule R2). What was only on its way somewhere counts if it is there at every look. Chunk servers report bad pages
 * to be repaired, so a second run is clean soon.
 */
import type { ChunkProblem } from '../wire/messages/checks.ts'
import type { MetadataMethods } from '../wire/messages/metadata.ts'
import type { ResultOf } from '../wire/messages/method.ts'
import type { AdminConnection } from './admin.ts'

const CHUNKS_AT_ONCE = 4
const PAGE_OF_CHUNKS = 1024
const ATTEMPTS_MAX = 5
const PROBLEMS_KEPT_MAX = 10_000
/** Each replica is read from a disk that others use. */
const CHECK_TIMEOUT_MS = 300_000

/** These may end by themselves in a moment: a server comes back, an epoch changes. */
const passingKinds: readonly ChunkProblem['kind'][] = ['unreadable', 'unreachable', 'too-few']

export interface Problem extends ChunkProblem {
  readonly chunk: number
  readonly inode: number
}

export interface FsckResult {
  chunks: number
  replicas: number
  pages: number
  /** Chunks in use that were verified but not compared. */
  notCompared: number
  problemCount: number
  problems: Problem[]
}

export interface FsckOptions {
  /** Replicas that differ are repaired by rule. */
  readonly repairs: boolean
  readonly onProgress: (result: FsckResult) => void
}

type Admin = Pick<AdminConnection, 'metadata' | 'pause'>
type Checked = ResultOf<MetadataMethods, 'admin.check'>

export async function checkCluster(admin: Admin, options: FsckOptions): Promise<FsckResult> {
  const result: FsckResult = {
    chunks: 0,
    replicas: 0,
    pages: 0,
    notCompared: 0,
    problemCount: 0,
    problems: [],
  }
  let after = 0
  for (;;) {
    const page = await admin.metadata.call('admin.chunks', { after, limit: PAGE_OF_CHUNKS })
    let next = 0
    const worker = async (): Promise<void> => {
      for (let listed = page.chunks[next++]; listed !== undefined; listed = page.chunks[next++]) {
        await checkChunk(admin, listed.location.chunk, listed.inode, options.repairs, result)
        options.onProgress(result)
      }
    }
    await Promise.all(Array.from({ length: CHUNKS_AT_ONCE }, worker))
    const last = page.chunks.at(-1)
    if (page.end || last === undefined) return result
    after = last.location.chunk
  }
}

async function checkChunk(
  admin: Admin,
  chunk: number,
  inode: number,
  repairs: boolean,
  result: FsckResult,
): Promise<void> {
  /** A page that does not verify is bad, also when it was repaired a moment later. */
  const facts = new Map<string, ChunkProblem>()
  let checked: Checked
  for (let attempt = 1; ; attempt++) {
    checked = await admin.metadata.call('admin.check', { chunk, repairs }, { timeoutMs: CHECK_TIMEOUT_MS })
    for (const problem of checked.problems)
      if (!passingKinds.includes(problem.kind)) facts.set(`${problem.server} ${problem.page}`, problem)
    const isPassing = checked.problems.some(({ kind }) => passingKinds.includes(kind))
    if (!isPassing || attempt === ATTEMPTS_MAX) break
    await admin.pause(200 * attempt)
  }
  const problems = [...checked.problems.filter(({ kind }) => passingKinds.includes(kind)), ...facts.values()]
  for (const problem of problems) addProblem(result, { ...problem, chunk, inode })
  result.problemCount += checked.problemCount - checked.problems.length
  result.chunks += 1
  result.replicas += checked.replicas
  result.pages += checked.pages
  if (checked.exists && !checked.isCompared && problems.length === 0) result.notCompared += 1
}

function addProblem(result: FsckResult, problem: Problem): void {
  result.problemCount += 1
  if (result.problems.length < PROBLEMS_KEPT_MAX) result.problems.push(problem)
}
