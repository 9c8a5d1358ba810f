/** Names in the directory of a metadata server. A file of its own, so that commands need not load the server. */

export const METADATA_DATABASE = 'metadata.db'
/** Beside the database, never in it (rule L4). */
export const HARD_STATE_FILE = 'hard-state'
