/**
 * The hooks that the kernel room owns: life of plugins, what any plugin may add to CLI, health and metrics, and
 * discovery, which every process asks before it can ask anybody else.
 */
import { asyncHook, syncHook } from './hook.ts'
import type { PluginState } from './state.ts'

export interface PluginStateChange {
  readonly plugin: string
  readonly from: PluginState
  readonly to: PluginState
  /** Why, one sentence; the last error for FAILED and RETRYING. */
  readonly reason: string | undefined
}

export interface CliArgument {
  readonly name: string
  readonly description: string
  /** Missing is wrong usage, unless true. */
  readonly optional?: boolean
  /** Takes all that follows; only the last argument may. */
  readonly variadic?: boolean
}

export interface CliOption {
  /** As commander writes them: "-n, --count <number>", "--dry-run". */
  readonly flags: string
  readonly description: string
  readonly default?: string | boolean | readonly string[]
  readonly required?: boolean
}

/** Where a command prints. `--json` is handled by the caller: `document` becomes the one JSON document. */
export interface CliOutput {
  readonly json: boolean
  line(text: string): void
  /** The result for `--json`; without it `lines` are printed. */
  document(value: unknown, lines: readonly string[]): void
  /** To stderr. */
  warn(text: string): void
}

export interface CliInvocation {
  readonly arguments: readonly (string | readonly string[] | undefined)[]
  readonly options: Readonly<Record<string, unknown>>
  readonly output: CliOutput
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal
}

/** A command without the command-line library: the CLI room turns it into one. */
export interface CliCommand {
  readonly name: string
  readonly description: string
  /** Shown in --help. */
  readonly example: string
  readonly arguments?: readonly CliArgument[]
  readonly options?: readonly CliOption[]
  readonly commands?: readonly CliCommand[]
  /** Returns the exit status of the CLI contract; nothing means 0. Absent only where there are sub-commands. */
  run?(invocation: CliInvocation): number | void | Promise<number | void>
}

export interface HealthReport {
  readonly status: 'ok' | 'warning' | 'critical'
  /** One sentence for an administrator. */
  readonly message: string
  readonly next?: string
}

export interface MetricSample {
  /** Unit last, Prometheus style: `iscsi_read_bytes_total`. */
  readonly name: string
  readonly type: 'counter' | 'gauge'
  readonly help: string
  readonly value: number
  readonly labels?: Readonly<Record<string, string>>
}

/** Where one metadata server may be. A hint: the handshake decides whether it is one of ours. */
export interface DiscoveredServer {
  /** IP address or host name. */
  readonly host: string
  /** Base port: metadata servers dial each other there, everyone else one above. */
  readonly port: number
  /** As in SRV records (RFC 2782): lower is asked earlier. 0 where the method knows none. */
  readonly priority: number
  /** As in SRV records: share among equal priorities. 0 where the method knows none. */
  readonly weight: number
}

/** What one way of looking found. A failure is an answer too: throwing counts as a fault of the plugin. */
interface DiscoveryReport {
  /** For people, behind "Discovering using": "DNS SRV records". Stays the same from call to call. */
  readonly method: string
  /** Why it failed, one sentence. Absent: it worked, even when it found nothing. */
  readonly problem?: string
  /** Answers that were left out, and why: invalid names, too many records. */
  readonly skipped?: readonly string[]
}

export interface ResolveReport extends DiscoveryReport {
  readonly servers: readonly DiscoveredServer[]
}

export interface ListReport extends DiscoveryReport {
  /** Names of clusters. */
  readonly clusters: readonly string[]
  /** Wall clock of the answer, milliseconds since 1970. */
  readonly atMs: number
}

/** A metadata server that runs in this process. */
export interface Announcement {
  readonly cluster: string
  readonly clusterUuid: string
  /** Base address. `host` may be 0.0.0.0 or ::, for all addresses of this host. */
  readonly host: string
  readonly port: number
}

export type AnnounceReport = DiscoveryReport

const EXPERIMENTAL = { since: '0.1.0', stability: 'experimental', onFault: 'ignore' } as const

export const kernelHooks = {
  plugin: {
    stateChanged: syncHook.notify<[change: PluginStateChange]>({
      name: 'plugin.stateChanged',
      since: '0.1.0',
      stability: 'stable',
      onFault: 'ignore',
      description: 'A plugin of this process went from one state to another.',
      parameters: ['change: PluginStateChange, which plugin, from, to, and why'],
    }),
  },
  cli: {
    register: syncHook.collect<[], readonly CliCommand[]>({
      name: 'cli.register',
      since: '0.1.0',
      stability: 'stable',
      onFault: 'ignore',
      description:
        'Commands of the cairn program. Called once, in the process of the command; the manifest must name the same commands.',
      parameters: [],
      returns: 'CliCommand[]',
    }),
  },
  health: {
    collect: asyncHook.collect<[], readonly HealthReport[] | HealthReport>({
      name: 'health.collect',
      since: '0.1.0',
      stability: 'stable',
      onFault: 'ignore',
      description:
        'The health of what the plugin runs, for status and alarms. Answer from memory where possible.',
      parameters: [],
      returns: 'HealthReport or HealthReport[]',
    }),
  },
  metrics: {
    collect: asyncHook.collect<[], readonly MetricSample[]>({
      name: 'metrics.collect',
      since: '0.1.0',
      stability: 'stable',
      onFault: 'ignore',
      description: 'Counters and gauges of the plugin, read at every scrape.',
      parameters: [],
      returns: 'MetricSample[]',
    }),
  },
  discovery: {
    resolve: asyncHook.collect<[cluster: string], readonly ResolveReport[]>({
      ...EXPERIMENTAL,
      name: 'discovery.resolve',
      description:
        "Where the metadata servers of a cluster are. Asked when a process starts and whenever none of those it knows serves. Order and doubles are the caller's business.",
      parameters: ['cluster: string, its name'],
      returns: 'ResolveReport[], one a method',
      deadlineMs: 6000,
    }),
    list: asyncHook.collect<[], readonly ListReport[]>({
      ...EXPERIMENTAL,
      name: 'discovery.list',
      description: 'Names of the clusters that can be found, for `cairn discover`.',
      parameters: [],
      returns: 'ListReport[], one a method',
      deadlineMs: 12_000,
    }),
    announce: asyncHook.collect<[announcements: readonly Announcement[]], readonly AnnounceReport[]>({
      ...EXPERIMENTAL,
      name: 'discovery.announce',
      description:
        'The metadata servers that run in this process, all of them: announce what is new, withdraw what is not in the list any more, leave the rest. Called at each change, and again when a plugin has started.',
      parameters: ['announcements: Announcement[], empty when the process stops'],
      returns: 'AnnounceReport[], one a method',
    }),
  },
} as const

declare module './hook-registry.ts' {
  interface HookDefinitions {
    readonly plugin: typeof kernelHooks.plugin
    readonly cli: typeof kernelHooks.cli
    readonly health: typeof kernelHooks.health
    readonly metrics: typeof kernelHooks.metrics
    readonly discovery: typeof kernelHooks.discovery
  }
}
