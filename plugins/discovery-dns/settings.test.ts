/** Proves what the configuration may hold, and what resolv.conf says. */
import assert from 'node:assert/strict'
import test from 'node:test'
import {
  checkSettings,
  configSchema,
  formatEndpoint,
  parseEndpoint,
  searchDomains,
  type Settings,
} from './settings.ts'

const defaults = Object.fromEntries(
  Object.entries(configSchema).map(([key, leaf]) => [key, leaf.default]),
) as unknown as Settings

test('endpoints are addresses with an optional port', () => {
  const read = (text: string): string => formatEndpoint(parseEndpoint('resolvers', text))
  assert.equal(read('10.0.0.1'), '10.0.0.1:53')
  assert.equal(read('10.0.0.1:5353'), '10.0.0.1:5353')
  assert.equal(read('fd00::1'), '[fd00::1]:53')
  assert.equal(read('[fd00::1]:5353'), '[fd00::1]:5353')
  for (const text of ['', 'ns.example.org', '10.0.0.1:0', '10.0.0.1:65536', '10.0.0.1:x', '[]:53'])
    assert.throws(() => read(text), /plugins\.discovery-dns\.resolvers: .*expected IP or IP:PORT/)
})

test('settings that cannot work are refused with their key', () => {
  checkSettings(defaults)
  checkSettings({
    ...defaults,
    domains: ['pcs.test.'],
    service: '_pstorage._tcp',
    names_record: 'pstorage_clusters',
  })
  const refused = (change: Partial<Settings>, reason: RegExp): void =>
    assert.throws(() => checkSettings({ ...defaults, ...change }), reason)
  refused({ domains: ['a b'] }, /domains/)
  refused({ domains: Array.from({ length: 9 }, () => 'a.test') }, /at most 8 domains/)
  refused({ service: '' }, /service/)
  refused({ names_record: 'a..b' }, /names_record/)
  refused({ timeout: 60_000 }, /timeout/)
  refused({ resolvers: Array.from({ length: 9 }, () => '10.0.0.1') }, /at most 8 servers/)
})

test('the last search or domain line of resolv.conf counts', () => {
  assert.deepEqual(searchDomains('nameserver 10.0.0.1\ndomain a.test\nsearch b.test. c.test\n'), [
    'b.test',
    'c.test',
  ])
  assert.deepEqual(searchDomains('# search x\nsearch .. ok.test'), ['ok.test'])
  assert.deepEqual(searchDomains(''), [])
})
