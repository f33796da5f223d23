/** One job, as its handler sees it. */

import type { Row } from './connection.js'
import { entrust, isSending, type Line } from './lines.js'
import { completed, discarded, failed, type Outcome, RELEASED, retried, snoozed, storable, MOST_ERROR, MOST_LINES } from './outcome.js'
import { COMPLETE, LOG_AND_COMPLETE } from './statements.js'
import { AttemptEnded, Cancelled, LeaseLost } from './words.js'

/** A client of node-postgres within a transaction, or what is like it. */
export interface Queryable {
  query(text: string, values: unknown[]): Promise<{ rows: unknown[] }>
}

export type CancelReason = 'lost' | 'stopping'

const LEVELS = ['debug', 'info', 'warning', 'error']

/** What a job asks of its worker. */
export interface Keeper {
  readonly queue: string
  readonly leaseS: number | null
  log(line: Line): void
  takeBack(job: Held): void
  /** Until no line of the job is under way. */
  written(job: Held): Promise<void>
  /** As any connection to the database can store it. */
  text(message: string): string
  reportSoon(job: Held): void
}

/** A claimed job. Its words (snooze, discard, retryIn) end the attempt from wherever they are called; the first one counts. */
export interface Job<Args = unknown> {
  readonly id: number
  readonly queue: string
  readonly args: Args
  /** The number of this attempt, from 1. */
  readonly attempt: number
  readonly maxAttempts: number | null
  readonly enqueuedAt: Date
  readonly uniqueKey: string | null
  /** Of the attempt before. */
  readonly lastError: string | null
  /** Aborted when the worker stops, or the job is no longer its own: end soon. Pass it on to fetch and the like. */
  readonly signal: AbortSignal
  /** Proves the claim, to the server's functions. */
  readonly token: string

  /** Ends the attempt, uncharged; the next one is due after delayMs. */
  snooze(delayMs: number, reason?: string): never
  /** Ends the job as discarded, because no attempt will do. */
  discard(reason: string): never
  /** Ends the attempt as failed, charged; the next one is due after delayMs, whatever the queue's backoff. */
  retryIn(delayMs: number, reason: string): never
  /** Keeps a line with the job; it is sent before the job's outcome, or with it. The levels: debug, info, warning, error. */
  log(message: string, level?: string): void
  /** How far the job is, from 0 to 1, and a word about it; sent once a second at most. */
  progress(fraction: number, message?: string): void
  /**
   * Completes the job in the transaction of this client: its effects happen exactly once. Its last statement before COMMIT: the
   * lease is no longer extended. What was logged before goes with it. Throws LeaseLost where the job is no longer the worker's; let it
   * through, so that the transaction rolls back.
   */
  complete(client: Queryable, result?: unknown): Promise<void>
}

export class Held implements Job {
  readonly id: number
  readonly queue: string
  readonly args: unknown
  /** Thrown in its attempt, because what one job has in it is nothing to others. */
  readonly unreadable: Error | undefined
  readonly attempt: number
  readonly maxAttempts: number | null
  readonly enqueuedAt: Date
  readonly uniqueKey: string | null
  readonly lastError: string | null
  readonly token: string

  readonly claimedAt: number
  readonly leaseMs: number
  /** What each extension asks for: nothing, where the queue says how long. */
  readonly extendByS: number | null
  /** Of the last claim or extension, by the monotonic clock and before it was sent: so the lease ends here no later than in the server. */
  sentAt: number
  extendAt: number
  reportedAt: number
  startedAt: number
  progressed: { fraction: number; message: string | null } | undefined
  completing = false
  lines: Line[] = []
  /** Its handler has ended, or was given up. */
  isOver = false
  /** Somebody has locked its row: it is extended alone. */
  isBusy = false
  cancelReason: CancelReason | undefined
  #word: Outcome | undefined
  readonly #abort = new AbortController()
  readonly #keeper: Keeper

  constructor(keeper: Keeper, sentAt: number, row: Row) {
    const [id, token, args, attempt, maxAttempts, enqueuedUs, uniqueKey, lastError, leaseUs] = row
    this.id = Number(id)
    this.queue = keeper.queue
    this.token = String(token)
    try {
      this.args = JSON.parse(args ?? 'null')
    } catch (error) {
      this.unreadable = new Error(`the arguments cannot be read: ${(error as Error).message}`, { cause: error })
    }
    this.attempt = Number(attempt)
    this.maxAttempts = maxAttempts === null ? null : Number(maxAttempts)
    this.enqueuedAt = new Date(Number(enqueuedUs) / 1000)
    this.uniqueKey = uniqueKey ?? null
    this.lastError = lastError ?? null
    this.leaseMs = leaseUs === null ? Infinity : Number(leaseUs) / 1000
    this.extendByS = keeper.leaseS
    this.claimedAt = this.sentAt = this.reportedAt = this.startedAt = sentAt
    this.extendAt = sentAt + this.leaseMs / 3
    this.#keeper = keeper
  }

  get signal(): AbortSignal {
    return this.#abort.signal
  }

  snooze(delayMs: number, reason?: string): never {
    return this.#say(snoozed(delayMs, reason), reason)
  }

  discard(reason: string): never {
    return this.#say(discarded(reason), reason)
  }

  retryIn(delayMs: number, reason: string): never {
    return this.#say(retried(delayMs, reason), reason)
  }

  log(message: string, level = 'info'): void {
    if (!LEVELS.includes(level)) throw new RangeError(`a level is ${LEVELS.join(', ')}, not ${level}`)
    const line: Line = { job: this, message: storable(String(message), MOST_ERROR), level, state: 'waiting', isRepeated: false }
    this.lines.push(line)
    this.#keeper.log(line)
  }

  progress(fraction: number, message?: string): void {
    if (!(fraction >= 0 && fraction <= 1)) throw new RangeError(`a fraction is from 0 to 1, not ${fraction}`)
    this.progressed = { fraction, message: message === undefined ? null : storable(message, MOST_ERROR) }
    this.#keeper.reportSoon(this)
  }

  async complete(client: Queryable, result?: unknown): Promise<void> {
    if ('totalCount' in client) throw new TypeError('a pool would complete the job outside of your transaction: pass the client that began it')
    const encoded = result === undefined ? null : JSON.stringify(result)
    this.completing = true
    entrust(this, MOST_LINES) // at once, so that no more of them get under way
    let rows: unknown[]
    try {
      // In another transaction, and too late behind the completion.
      if (isSending(this)) await this.#keeper.written(this)
      const said = entrust(this, MOST_LINES).map((line) => [this.#keeper.text(line.message), line.level])
      rows =
        said.length === 0
          ? (await client.query(COMPLETE, [this.id, this.token, encoded])).rows
          : (await client.query(LOG_AND_COMPLETE, [this.id, this.token, encoded, inAscii(said)])).rows
    } catch (error) {
      // It is not completed: what went with it is the settler's again.
      this.completing = false
      this.#keeper.takeBack(this)
      throw error
    }
    if (Object.values(rows[0] as object)[0] !== true) {
      this.cancelReason = 'lost'
      throw new LeaseLost(`job ${this.id} of queue ${this.queue} is no longer this worker's`)
    }
  }

  #say(word: Outcome, reason: string | undefined): never {
    this.#word ??= word
    throw new AttemptEnded(reason ?? word.kind)
  }

  /** When the lease is over for certain, where no extension was answered. */
  get endsAt(): number {
    return this.sentAt + this.leaseMs
  }

  cancel(reason: CancelReason): void {
    if (this.cancelReason !== undefined) return
    this.cancelReason = reason
    this.#abort.abort(reason === 'lost' ? new LeaseLost(`job ${this.id} is no longer this worker's`) : new Cancelled('the worker stops'))
  }

  /** What the server is told at the handler's end; undefined where there is nothing to tell. */
  outcome(ended: { result: unknown } | { error: unknown }): Outcome | undefined {
    if (this.cancelReason === 'lost') return undefined
    if (this.#word !== undefined) return this.#word
    if ('error' in ended) return this.cancelReason === 'stopping' ? RELEASED : failed(ended.error)
    return this.completing ? undefined : completed(ended.result)
  }
}

function inAscii(value: unknown): string {
  return JSON.stringify(value).replace(/[^\0-\x7f]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
}
