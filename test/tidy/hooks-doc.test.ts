// Proves that docs/hooks.md says what the hook definitions say, so that every change of the hooks shows in review.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { describeHooks, hooksDocument } from '../../scripts/hooks-doc.ts'
import { readText } from './source-tree.ts'

test('docs/hooks.md is what scripts/hooks-doc.ts writes today', async () => {
  const written = await describeHooks()
  assert.match(written, /^## plugin\.stateChanged$/m, 'the definitions were not found')
  assert.equal(
    readText(hooksDocument),
    written,
    'the hooks changed: run node scripts/hooks-doc.ts and review',
  )
})
