/** What a hostile peer may get wrong in a data request, before anything is looked up. */
import {
  CHUNK_SIZE_BYTES,
  DATA_PAYLOAD_BYTES_MAX,
  PAGE_SIZE_BYTES,
  REGION_SIZE_BYTES,
} from '../../base/units.ts'
import { verifyPageChecksums } from '../../wire/checksum.ts'
import type { WireCode } from '../../wire/codes.ts'
import { DataOp, type DataRequest } from '../../wire/data.ts'

/** '' = well formed; of a write the payload matches its table (rule P5). */
export function validateRequest(
  request: DataRequest,
  borrowedTable: Buffer,
  borrowedPayload: Buffer | null,
): WireCode | '' {
  const { op, offset, length } = request
  if (op === DataOp.flush) return borrowedPayload === null ? '' : 'BAD_MESSAGE'
  if (offset + length > CHUNK_SIZE_BYTES) return 'BAD_MESSAGE'
  if (op === DataOp.write) {
    if (length === 0 || length > DATA_PAYLOAD_BYTES_MAX) return 'BAD_MESSAGE'
    if (borrowedPayload?.length !== length) return 'BAD_MESSAGE'
    return verifyPageChecksums(borrowedPayload, offset, borrowedTable) === -1 ? '' : 'FRAME_CHECKSUM'
  }
  if (borrowedPayload !== null || length === 0) return 'BAD_MESSAGE'
  if (op === DataOp.zero) return ''
  if (op === DataOp.read) return length <= DATA_PAYLOAD_BYTES_MAX ? '' : 'BAD_MESSAGE'
  if (offset % PAGE_SIZE_BYTES !== 0 || length % PAGE_SIZE_BYTES !== 0) return 'BAD_MESSAGE'
  return op === DataOp.digest || length <= REGION_SIZE_BYTES ? '' : 'BAD_MESSAGE'
}
