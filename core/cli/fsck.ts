/**
 * The check of `cairn fsck`: every page of every replica is read and verified on its chunk server, and the
 * in-sync replicas of a chunk are compared by digest. A chunk that is being written is verified page by page
 * but not compared (rule R2); a difference counts only if it is there at every look. Chunk servers report what
 * they find to be repaired, so a second run is clean soon.
 */
import { codeOf } from '../base/errors.ts'
import type { ChunkLocation, ServerAddress } from '../wire/messages/common.ts'
import type { AdminConnection } from './admin.ts'

const CHUNKS_AT_ONCE = 4
const PAGE_OF_CHUNKS = 1024
const ATTEMPTS_MAX = 5
const PROBLEMS_KEPT_MAX = 10_000

export type ProblemKind = 'bad-page' | 'lost-page' | 'unreadable' | 'differs' | 'unreachable' | 'too-few'

export interface Problem {
  readonly kind: ProblemKind
  readonly chunk: number
  readonly inode: number
  readonly server: number
  readonly detail: string
  readonly page?: number
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

interface ReplicaVerdict {
  readonly pages: number
  readonly badPages: readonly number[]
  readonly lostPages: readonly number[]
  readonly digests: readonly number[]
}
/** Verifies one replica on its server. Rejects with a WireCode. */
export type VerifyReplica = (
  address: ServerAddress,
  chunk: number,
  version: number,
) => Promise<ReplicaVerdict>

type ListedChunk = { readonly inode: number; readonly busy: boolean; readonly location: ChunkLocation }

/** What one look at the replicas of a chunk found. */
interface CheckedChunk {
  replicas: number
  pages: number
  /** A page that does not verify is bad, also when it was repaired a moment later. */
  readonly facts: Problem[]
  /** May be a change that was under way: counts if it is there at every look. */
  readonly doubts: Problem[]
}

export async function checkCluster(
  admin: Pick<AdminConnection, 'metadata' | 'pause'>,
  verify: VerifyReplica,
  onProgress: (result: FsckResult) => void,
): Promise<FsckResult> {
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
    const servers = new Map(page.servers.map((server) => [server.server, server]))
    let next = 0
    const worker = async (): Promise<void> => {
      for (let listed = page.chunks[next++]; listed !== undefined; listed = page.chunks[next++]) {
        await checkChunk(admin, verify, servers, listed, result)
        onProgress(result)
      }
    }
    await Promise.all(Array.from({ length: CHUNKS_AT_ONCE }, worker))
    const last = page.chunks.at(-1)
    if (page.end || last === undefined) return result
    after = last.location.chunk
  }
}

async function checkChunk(
  admin: Pick<AdminConnection, 'metadata' | 'pause'>,
  verify: VerifyReplica,
  servers: Map<number, ServerAddress>,
  listed: ListedChunk,
  result: FsckResult,
): Promise<void> {
  let current: ListedChunk | null = listed
  let checked: CheckedChunk = { replicas: 0, pages: 0, facts: [], doubts: [] }
  const facts = new Map<string, Problem>()
  for (let attempt = 1; current !== null; attempt++) {
    checked = await verifyMembers(verify, servers, current)
    for (const fact of checked.facts) facts.set(`${fact.server} ${fact.page}`, fact)
    if (checked.doubts.length === 0) break
    if (attempt === ATTEMPTS_MAX) {
      for (const problem of checked.doubts) addProblem(result, problem)
      break
    }
    await admin.pause(200 * attempt)
    current = await listAgain(admin, servers, listed.location.chunk)
  }
  for (const fact of facts.values()) addProblem(result, fact)
  result.chunks += 1
  result.replicas += checked.replicas
  result.pages += checked.pages
  if (current?.busy === true) result.notCompared += 1
}

/** Null when the chunk is gone meanwhile. */
async function listAgain(
  admin: Pick<AdminConnection, 'metadata'>,
  servers: Map<number, ServerAddress>,
  chunk: number,
): Promise<ListedChunk | null> {
  const page = await admin.metadata.call('admin.chunks', { after: chunk - 1, limit: 1 })
  for (const server of page.servers) servers.set(server.server, server)
  const listed = page.chunks[0]
  return listed?.location.chunk === chunk ? listed : null
}

async function verifyMembers(
  verify: VerifyReplica,
  servers: ReadonlyMap<number, ServerAddress>,
  listed: ListedChunk,
): Promise<CheckedChunk> {
  const { location, inode } = listed
  const checked: CheckedChunk = { replicas: 0, pages: 0, facts: [], doubts: [] }
  const report = (kind: ProblemKind, server: number, detail: string, page?: number): void => {
    const isFact = kind === 'bad-page' || kind === 'lost-page'
    checked[isFact ? 'facts' : 'doubts'].push({
      kind,
      chunk: location.chunk,
      inode,
      server,
      detail,
      ...(page === undefined ? {} : { page }),
    })
  }
  const inSync = location.members.filter((member) => member.role === 'in-sync')
  if (inSync.length === 0) report('too-few', 0, 'no replica is in sync')
  const verdicts: { server: number; verdict: ReplicaVerdict }[] = []
  await Promise.all(
    inSync.map(async (member) => {
      const address = servers.get(member.server)
      if (address === undefined || !address.active)
        return report('unreachable', member.server, 'the chunk server is not active')
      try {
        verdicts.push({
          server: member.server,
          verdict: await verify(address, location.chunk, location.version),
        })
      } catch (error) {
        report('unreadable', member.server, codeOf(error))
      }
    }),
  )
  for (const { server, verdict } of verdicts) {
    checked.replicas += 1
    checked.pages += verdict.pages
    for (const page of verdict.badPages) report('bad-page', server, 'does not verify', page)
    for (const page of verdict.lostPages) report('lost-page', server, 'no replica can supply it', page)
  }
  if (!listed.busy) compareDigests(verdicts, report)
  return checked
}

function compareDigests(
  verdicts: readonly { server: number; verdict: ReplicaVerdict }[],
  report: (kind: ProblemKind, server: number, detail: string) => void,
): void {
  const [first, ...others] = verdicts
  if (first === undefined) return
  for (const { server, verdict } of others) {
    const region = verdict.digests.findIndex((digest, index) => digest !== first.verdict.digests[index])
    if (region >= 0)
      report('differs', server, `region ${region} differs from the replica on CS#${first.server}`)
  }
}

function addProblem(result: FsckResult, problem: Problem): void {
  result.problemCount += 1
  if (result.problems.length < PROBLEMS_KEPT_MAX) result.problems.push(problem)
}
