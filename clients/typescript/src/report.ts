/** The worker's log and metrics: what is wrong is said once, and once more when it is well again. */

export type Level = 'debug' | 'info' | 'warn' | 'error'
export type Fields = Record<string, unknown>
export type Logger = Record<Level, (message: string, fields: Fields) => void>

export type MetricsEvent =
  /** Once for each claim that got jobs: seconds of the statement. */
  | 'claimed'
  /** A handler begins: seconds since the claim was sent. */
  | 'started'
  /** These six, a handler has ended: seconds that it ran. */
  | 'completed'
  | 'failed'
  | 'snoozed'
  | 'discarded'
  | 'released'
  /** The lease ended before the handler did, so that what it did may be done again. */
  | 'lost'
  /** An outcome came too late, and changed nothing: seconds of the statement. */
  | 'refused'
  /** Once for each statement that told outcomes: seconds of the statement. */
  | 'settled'
  /** Once for each statement that extended leases: seconds of the statement. */
  | 'extended'
  /** The server was not reached, or refused: seconds until the next attempt. */
  | 'backoff'

/** Called with the event, the queue ('' where a statement was for several) and seconds. */
export type Metrics = (event: MetricsEvent, queue: string, seconds: number) => void

/** A line of JSON each on standard error. */
export const toStandardError: Logger = {
  debug: () => undefined,
  info: (message, fields) => line('info', message, fields),
  warn: (message, fields) => line('warn', message, fields),
  error: (message, fields) => line('error', message, fields),
}

/** Whatever was thrown: what throws when it is asked what it is, too. A server's error says why, and what to do about it. */
export function text(error: unknown): string {
  try {
    if (!(error instanceof Error)) return String(error)
    const { detail, hint } = error as { detail?: unknown; hint?: unknown }
    const more = Object.entries({ DETAIL: detail, HINT: hint }).flatMap(([name, said]) => (typeof said === 'string' ? [`\n${name}:  ${said}`] : []))
    return `${error.name}: ${error.message}${more.join('')}${wayOut(error)}`
  } catch {
    return 'what throws when it is asked what it is'
  }
}

/** The server's own words about a schema that is not there, or closed, do not say what a worker lacks. */
function wayOut(error: Error & { code?: unknown }): string {
  if (error.code === '3F000') return '\nHINT:  This database has no extension pushy: connect to the one that has it, or run CREATE EXTENSION pushy.'
  if (error.code === '42501' && error.message.includes('schema pushy')) return "\nHINT:  Run GRANT USAGE ON SCHEMA pushy for the worker's role."
  return ''
}

function line(level: Level, message: string, fields: Fields): void {
  process.stderr.write(`${JSON.stringify({ at: new Date().toISOString(), level, message, ...fields })}\n`)
}

export class Report {
  readonly #logger: Logger
  readonly #metrics: Metrics | undefined
  readonly #troubles = new Map<string, string>()

  constructor(logger: Logger, metrics: Metrics | undefined) {
    this.#logger = logger
    this.#metrics = metrics
  }

  count(event: MetricsEvent, queue: string, seconds: number): void {
    try {
      this.#metrics?.(event, queue, seconds)
    } catch (error) {
      this.trouble('metrics', error)
    }
  }

  log(level: Level, message: string, fields: Fields): void {
    try {
      this.#logger[level](message, fields)
    } catch (error) {
      // A job must not be lost by what the program's logger makes of it.
      toStandardError.error(`the logger failed: ${text(error)}`, { event: 'trouble' })
    }
  }

  /** Says that `what` does not work; the same thing is not said again before `well`. */
  trouble(what: string, error: unknown, fields: Fields = {}): void {
    const said = text(error)
    if (this.#troubles.get(what) !== said) {
      this.#troubles.set(what, said)
      this.log('error', `${what}: ${said}`, { event: 'trouble', sqlstate: (error as { code?: unknown } | null)?.code, ...fields })
    }
  }

  well(what: string): void {
    if (this.#troubles.delete(what)) this.log('info', `${what}: works again`, { event: 'well' })
  }
}
