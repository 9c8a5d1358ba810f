/** The FUSE mount as a plugin: the commands `mount` and `umount`, and `mountFuse` for programs. */
import { CairnError, definePlugin } from '@cairn/core/plugin'
import { CLIENT_ENVIRONMENT, type ClientEnvironment, mountCommand, unmountCommand } from './commands.ts'

export { mountFuse } from './mount/mount.ts'
export type { Mount, MountParameters } from './mount/mount.ts'
export { parseMountOptions, parseSource } from './options.ts'
export type { MountSettings } from './options.ts'
export type { ClientEnvironment } from './commands.ts'
export { CLIENT_ENVIRONMENT } from './commands.ts'

export default definePlugin({
  apply(kernel) {
    const environment = (): ClientEnvironment => {
      const found = kernel.find<ClientEnvironment>(CLIENT_ENVIRONMENT)
      if (found !== undefined) return found
      throw new CairnError('MOUNT_FAILED', 'this program cannot connect to clusters', {
        next: 'run the cairn program itself',
      })
    }
    kernel.hooks.cli.register.tap(() => [mountCommand(environment), unmountCommand])
  },
})
