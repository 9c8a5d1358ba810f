/** What the workload asks of a client: one in this process, or one in a process of its own. */
import type { Credentials, File, FileSystem, Snapshots } from '../../core/client/api.ts'
import type { Attributes } from '../../core/wire/messages/common.ts'

export type WorkedFile = Pick<File, 'attributes' | 'read' | 'write' | 'flush' | 'truncate' | 'zero' | 'close'>
export interface WorkedFileSystem extends Pick<FileSystem, 'lookup' | 'unlink' | 'rename'> {
  open(inode: number): Promise<WorkedFile>
  create(
    parent: number,
    name: string,
    mode: number,
    owner: Credentials,
    exclusive: boolean,
  ): Promise<{ attributes: Attributes; file: WorkedFile }>
}
export interface WorkedClient {
  readonly fileSystem: WorkedFileSystem
  /** Null: it cannot be asked for any from here. */
  readonly snapshots: Snapshots | null
}
