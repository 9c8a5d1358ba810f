/** Proves that log files hold JSON lines, rotate, and stay within their bound together. */
import { equal, ok } from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { createNodeLogger } from './logger.ts'

test('lines are JSON with level, time, name, part and fields', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'cairn-log-'))
  const file = join(directory, 'mds.log')
  const logger = createNodeLogger({ name: 'mds', file })
  logger.child('wire').warn('closed', { reason: 'test', count: 3 })
  logger.debug('not shown')
  await logger.close()
  const lines = (await readFile(file, 'utf8')).trim().split('\n')
  equal(lines.length, 1)
  const line = JSON.parse(lines[0] ?? '')
  equal(
    [line.level, line.name, line.part, line.msg, line.reason, line.count].join(),
    'warn,mds,wire,closed,test,3',
  )
  ok(!Number.isNaN(Date.parse(line.time)))
  await rm(directory, { recursive: true })
})

test('files rotate by size, and old ones are removed', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'cairn-log-'))
  const logger = createNodeLogger({
    name: 'cs',
    file: join(directory, 'cs.log'),
    fileMegabytesMax: 1,
    fileCountMax: 2,
  })
  const text = 'x'.repeat(10_000)
  for (let i = 0; i < 600; i++) {
    logger.info(text, { i })
    // the stream rotates between writes: give it its turn
    if (i % 20 === 0) await new Promise((resolve) => setImmediate(resolve))
  }
  await logger.close()
  const sizes = await Promise.all(
    (await readdir(directory)).map(async (name) => (await stat(join(directory, name))).size),
  )
  ok(sizes.length > 1, 'it rotated')
  ok(
    sizes.reduce((sum, size) => sum + size, 0) < 5 * 1024 * 1024,
    `${sizes.join()} bytes are left of 6 MB written`,
  )
  await rm(directory, { recursive: true })
})
