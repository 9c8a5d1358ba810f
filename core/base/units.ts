/** Sizes and geometry that every room agrees on. Bytes unless the name says otherwise. */

export const KIB = 1024
export const MIB = 1024 * KIB
export const GIB = 1024 * MIB

/** Unit of checksums, stamps and hole states. */
export const PAGE_SIZE_BYTES = 4 * KIB
/** A chunk of a file (guide: 64 MiB by default; fixed for now). */
export const CHUNK_SIZE_BYTES = 64 * MIB
export const PAGES_PER_CHUNK = CHUNK_SIZE_BYTES / PAGE_SIZE_BYTES
/** Unit of the open list and of checksum blocks: 256 pages. */
export const REGION_SIZE_BYTES = PAGE_SIZE_BYTES * 256
export const PAGES_PER_REGION = REGION_SIZE_BYTES / PAGE_SIZE_BYTES
export const REGIONS_PER_CHUNK = CHUNK_SIZE_BYTES / REGION_SIZE_BYTES
/** Largest payload of one data request or answer. */
export const DATA_PAYLOAD_BYTES_MAX = 1024 * KIB
