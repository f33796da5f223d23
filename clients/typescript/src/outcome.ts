/** How an attempt ended, as the server is told. */

import type { MetricsEvent } from './report.js'

export const MOST_ERROR = 1_000
const MOST_DETAIL = 8_000
export const MOST_LINES = 1_000 // of a job, as the server keeps

export interface Outcome {
  readonly event: MetricsEvent
  readonly kind: 'complete' | 'fail' | 'release' | 'snooze' | 'discard'
  readonly fields: {
    result?: unknown
    error?: string
    sqlstate?: string
    detail?: string
    /** Seconds. */
    retry_in?: number
    delay?: number
  }
}

export const RELEASED: Outcome = { event: 'released', kind: 'release', fields: {} }

export function completed(result: unknown): Outcome {
  return { event: 'completed', kind: 'complete', fields: result === undefined ? {} : { result } }
}

export function failed(error: unknown): Outcome {
  return { event: 'failed', kind: 'fail', fields: describe(error) }
}

export function retried(delayMs: number, reason: string): Outcome {
  return { event: 'failed', kind: 'fail', fields: { error: storable(reason, MOST_ERROR), retry_in: seconds(delayMs) } }
}

export function snoozed(delayMs: number, reason: string | undefined): Outcome {
  const said = reason === undefined ? {} : { error: storable(reason, MOST_ERROR) }
  return { event: 'snoozed', kind: 'snooze', fields: { delay: seconds(delayMs), ...said } }
}

export function discarded(reason: string): Outcome {
  return { event: 'discarded', kind: 'discard', fields: { error: storable(reason, MOST_ERROR) } }
}

/** One element of the array that pushy.jobs_settle takes; throws for a result that is no JSON. */
export function encode(outcome: Outcome, jobId: number, token: string): string {
  return JSON.stringify({ job_id: jobId, token, outcome: outcome.kind, ...outcome.fields })
}

/** What JSON.stringify leaves out, or makes another value of. */
export function isNoJson(result: unknown): boolean {
  return typeof result === 'function' || typeof result === 'symbol' || (typeof result === 'number' && !Number.isFinite(result))
}

/** The same outcome with nothing but ASCII in its texts. */
export function plain(encoded: string): string {
  return JSON.stringify(JSON.parse(encoded), (_, value: unknown) =>
    typeof value === 'string' ? value.replace(/[^\0-\x7f]/gu, '?') : value,
  )
}

/** PostgreSQL stores neither U+0000 nor halves of surrogate pairs. */
export function storable(text: string, most: number): string {
  return text.slice(0, most).replaceAll('\0', '\\0').replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, '?')
}

function seconds(delayMs: number): number {
  if (!(delayMs >= 0 && delayMs < Infinity)) throw new RangeError(`a delay is a number of milliseconds from 0 on, not ${delayMs}`)
  return delayMs / 1000
}

function describe(error: unknown): Outcome['fields'] {
  try {
    return described(error)
  } catch {
    // The error's own methods: its job is to be failed all the same.
    return { error: 'thrown: what throws when it is asked what it is' }
  }
}

function described(error: unknown): Outcome['fields'] {
  if (!(error instanceof Error)) return { error: storable(`thrown: ${String(error)}`, MOST_ERROR) }
  const said = {
    error: storable(error.message ? `${error.name}: ${error.message}` : error.name, MOST_ERROR),
    detail: storable(String(error.stack ?? ''), MOST_DETAIL),
  }
  const sqlstate = sqlstateOf(error) ?? sqlstateOf(error.cause)
  return sqlstate === undefined ? said : { ...said, sqlstate }
}

/** Of an error of node-postgres, which has a severity, too: a code alone may be Node's (EPIPE). */
function sqlstateOf(error: unknown): string | undefined {
  const { code, severity } = (error ?? {}) as { code?: unknown; severity?: unknown }
  return typeof code === 'string' && severity !== undefined && /^[0-9A-Z]{5}$/.test(code) ? code : undefined
}
