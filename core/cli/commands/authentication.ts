/**
 * `cairn auth-node`, `cairn passwd`: a host proves the cluster's password once; the password and the cluster key
 * are changed. Guide: Password-based Authentication.
 */
import type { Command } from 'commander'
import { CairnError } from '../../base/errors.ts'
import { keyMethods } from '../../wire/messages/authentication.ts'
import { authenticateHost, changePassword } from '../authentication.ts'
import type { CommandContext } from '../context.ts'
import { formatDuration } from '../output.ts'
import { readPassword } from '../password.ts'

interface PasswdOptions {
  readonly passwordFile?: string
  readonly newPasswordFile?: string
  readonly rotateKey?: boolean
  readonly retireKey?: boolean
}

export function registerAuthenticationCommands(program: Command, contextOf: () => CommandContext): void {
  program
    .command('auth-node')
    .description('prove the password of the cluster, once on each host')
    .option('--password-file <file>', 'its first line is the password (default: terminal or standard input)')
    .addHelpText('after', '\nExample:\n  cairn -c demo auth-node')
    .action(async (options: { passwordFile?: string }) => {
      const context = contextOf()
      const cluster = context.cluster()
      const metadataServers = context.metadataServers()
      const password = await readPassword({
        file: options.passwordFile,
        prompt: `Password of cluster '${cluster}'`,
        warn: warningsOf(context),
      })
      await authenticateHost({ cluster, metadataServers, password }, context.etc)
      const keyFile = context.etc.keyFile(cluster)
      context.output.document({ cluster, keyFile })
      context.output.line(`This host is authenticated in cluster '${cluster}' (${keyFile}).`)
    })

  program
    .command('passwd')
    .description('change the password of the cluster, or replace its key')
    .option('--password-file <file>', 'its first line is the old password')
    .option('--new-password-file <file>', 'its first line is the new password')
    .option(
      '--rotate-key',
      'make a new cluster key; hosts get it by themselves, the old one stays valid for a while',
    )
    .option('--retire-key', 'end the validity of the old key now')
    .addHelpText('after', '\nExample:\n  cairn -c demo passwd\n  cairn -c demo passwd --rotate-key')
    .action(async (options: PasswdOptions) => {
      const context = contextOf()
      if (options.rotateKey === true && options.retireKey === true)
        throw new CairnError('USAGE', 'rotate first; retire the old key once all hosts have the new one')
      if (options.rotateKey === true) await rotateKey(context)
      else if (options.retireKey === true) await retireKey(context)
      else await changeThePassword(context, options)
    })
}

async function changeThePassword(context: CommandContext, options: PasswdOptions): Promise<void> {
  const cluster = context.cluster()
  const metadataServers = context.metadataServers()
  const warn = warningsOf(context)
  const password = await readPassword({
    file: options.passwordFile,
    prompt: `Password of cluster '${cluster}'`,
    warn,
  })
  const newPassword = await readPassword({
    file: options.newPasswordFile,
    prompt: 'New password',
    isNew: true,
    warn,
  })
  await changePassword({ cluster, metadataServers, password }, newPassword)
  context.output.document({ cluster, changed: 'password' })
  context.output.line(
    `The password of cluster '${cluster}' is changed. Hosts that are authenticated stay so.`,
  )
}

async function rotateKey(context: CommandContext): Promise<void> {
  await context.withAdmin(async (admin) => {
    const { version, overlapMs } = await admin.peer.caller(keyMethods).call('key.rotate', {})
    context.output.document({ version, overlapMs })
    context.output.line(
      `The cluster key has version ${version} now. Hosts that are connected get it by themselves.\n` +
        `The old one is valid for ${formatDuration(overlapMs)} more, or until: cairn -c ${context.cluster()} passwd --retire-key\n` +
        'Hosts that are off all that time run auth-node again.',
    )
  })
}

async function retireKey(context: CommandContext): Promise<void> {
  await context.withAdmin(async (admin) => {
    const { oldest } = await admin.peer.caller(keyMethods).call('key.retire', {})
    context.output.document({ version: oldest })
    context.output.line(`Only version ${oldest} of the cluster key is valid now.`)
  })
}

function warningsOf(context: CommandContext): (text: string) => void {
  return (text) => context.output.note(`cairn: warning: ${text}`)
}
