/** Extends the leases of jobs until their outcomes are answered, and reports their progress: many in one statement. */

import pg from 'pg'
import { Backoff } from './backoff.js'
import { Bell } from './bell.js'
import type { Held } from './job.js'
import { isOfOne, type Link, mayPass } from './link.js'
import type { Report } from './report.js'
import { EXTEND, GLANCE } from './statements.js'
import { Stride } from './stride.js'

const REPORT_EVERY_MS = 1_000
const PATIENCE_MS = 500 // with rows that are locked, where none was lately
const BUSY_MS = 1_000 // until one is tried again whose row somebody has locked
const BUSY_EACH_MS = 4 // so that many of them leave time for the others
const LAP_MS = 500
const WHAT = 'extending leases'
const WHAT_WAITS = 'extending leases of jobs whose rows are locked'

export class Extender {
  readonly #link: Link
  readonly #report: Report
  readonly #held = new Map<number, Held>()
  readonly #bell = new Bell()
  readonly #stride = new Stride()
  #wakesAt = Infinity
  #over: NodeJS.Timeout | undefined
  #overAt = Infinity
  #ended = false

  constructor(link: Link, report: Report) {
    this.#link = link
    this.#report = report
  }

  hold(job: Held): void {
    const before = this.#held.get(job.id)
    if (before !== undefined) this.#lose(before, 'its lease was over, and it was claimed again')
    this.#held.set(job.id, job)
    this.#notLaterThan(job.extendAt)
    this.#endNotLaterThan(job.endsAt)
  }

  letGo(job: Held): void {
    if (this.#held.get(job.id) === job) this.#held.delete(job.id)
  }

  reportSoon(job: Held): void {
    if (this.#held.get(job.id) !== job) return
    job.extendAt = Math.min(job.extendAt, Math.max(performance.now(), job.reportedAt + REPORT_EVERY_MS))
    this.#notLaterThan(job.extendAt)
  }

  end(): void {
    this.#ended = true
    clearTimeout(this.#over)
    this.#bell.ring()
  }

  async run(): Promise<void> {
    const backoff = new Backoff(100, 2_000)
    let notBefore = 0
    while (!this.#ended) {
      if (performance.now() >= notBefore) {
        if (await this.#extendDue()) {
          backoff.reset()
          this.#report.well(WHAT)
        } else {
          const pauseMs = backoff.nextMs()
          this.#report.count('backoff', '', pauseMs / 1000)
          notBefore = performance.now() + pauseMs
        }
      }
      const now = performance.now()
      // A completion may fail, and its job is extended again.
      const nextAt = [...this.#held.values()].map((job) => (job.completing ? Math.max(job.extendAt, now + BUSY_MS) : job.extendAt))
      this.#wakesAt = Math.max(notBefore, Math.min(...nextAt))
      await this.#bell.wait(this.#wakesAt - performance.now())
    }
  }

  /** Not those whose rows their handlers' own transactions have locked, because an extension would wait for them. */
  #extended(): Held[] {
    return [...this.#held.values()].filter((job) => !job.completing)
  }

  #notLaterThan(at: number): void {
    if (at < this.#wakesAt) {
      this.#wakesAt = at
      this.#bell.ring()
    }
  }

  /** Whether the server answered. Those that are almost due come along; one of those whose rows somebody has locked comes after. */
  async #extendDue(): Promise<boolean> {
    const now = performance.now()
    const along = this.#extended().filter((job) => !job.isBusy && job.extendAt - job.leaseMs / 12 <= now)
    if (along.some((job) => job.extendAt <= now) && !(await this.#extendTogether(along))) return false
    let busy: Held | undefined
    for (const job of this.#extended()) if (job.isBusy && (busy === undefined || job.extendAt < busy.extendAt)) busy = job
    return busy === undefined || busy.extendAt > now || (await this.#extendAlone(busy))
  }

  /** In the order in which their leases end; those whose rows somebody has locked are found, because they must not hold up the others. */
  async #extendTogether(jobs: Held[]): Promise<boolean> {
    let left = [...jobs].sort((one, other) => one.endsAt - other.endsAt)
    const until = performance.now() + LAP_MS
    for (;;) {
      left = left.filter((job) => !job.completing && this.#held.get(job.id) === job)
      // After so long with those that have become due meanwhile.
      if (left.length === 0 || performance.now() > until) return true
      const some = left.slice(0, this.#stride.of(left.length))
      try {
        if (!(await this.#extend(some, this.#stride.isFree ? patience(some) : GLANCE))) return false
        this.#stride.taken(some.length, left.length)
      } catch (caught) {
        const error = caught as pg.DatabaseError
        if (this.#isOfAll(error)) return false
        this.#stride.refused(some.length)
        if (some.length > 1) continue
        this.#passOver(some[0] as Held, error)
      }
      left = left.slice(some.length)
    }
  }

  /** The server takes nothing at all. */
  #isOfAll(error: pg.DatabaseError): boolean {
    const isOfAll = mayPass(error) && !isOfOne(error)
    if (isOfAll) this.#report.trouble(WHAT, error)
    return isOfAll
  }

  /** Somebody has locked its row, or what it has said of its progress cannot be stored: then it is left unsaid. */
  #passOver(job: Held, error: pg.DatabaseError): void {
    this.#report.trouble(isOfOne(error) ? WHAT_WAITS : WHAT, error)
    if (!mayPass(error)) job.progressed = undefined
    job.isBusy = true
    const busy = [...this.#held.values()].filter((other) => other.isBusy).length
    job.reportedAt = performance.now()
    job.extendAt = job.reportedAt + Math.max(Math.min(BUSY_MS, job.leaseMs / 6), BUSY_EACH_MS * busy)
  }

  async #extendAlone(job: Held): Promise<boolean> {
    try {
      if (!(await this.#extend([job], GLANCE))) return false
      job.isBusy = false
      if (![...this.#held.values()].some((other) => other.isBusy)) this.#report.well(WHAT_WAITS)
    } catch (error) {
      if (this.#isOfAll(error as pg.DatabaseError)) return false
      this.#passOver(job, error as pg.DatabaseError)
    }
    return true
  }

  /** Whether the server was reached; throws a pg.DatabaseError. */
  async #extend(jobs: Held[], lockTimeout: string): Promise<boolean> {
    if (this.#ended) return false
    const sentAt = performance.now()
    const said = jobs.map((job) => job.progressed)
    const values = [
      jobs.map((job) => job.id),
      jobs.map((job) => job.token),
      jobs.map((job) => job.extendByS),
      said.map((share) => share?.fraction ?? null),
      said.map((share) => share?.message ?? null),
      lockTimeout,
    ]
    const timeoutMs = Math.max(1_000, Math.min(...jobs.map((job) => job.endsAt)) - sentAt)
    let answers: Map<number, string | null | undefined>
    try {
      answers = new Map((await this.#link.fetch(EXTEND, values, { timeoutMs })).map(([id, answer]) => [Number(id), answer]))
    } catch (error) {
      if (error instanceof pg.DatabaseError) throw error
      this.#report.trouble(WHAT, error)
      return false
    }
    this.#report.count('extended', '', (performance.now() - sentAt) / 1000)
    for (const [n, job] of jobs.entries()) {
      const answer = answers.get(job.id)
      if (answer === 'f') this.#lose(job, 'somebody cancelled it, or its lease was over')
      if (answer !== 't') continue
      job.sentAt = job.reportedAt = sentAt
      job.extendAt = sentAt + job.leaseMs / 3
      if (job.progressed === said[n]) job.progressed = undefined
      else this.reportSoon(job)
    }
    return jobs.every((job) => typeof answers.get(job.id) === 'string')
  }

  #endNotLaterThan(at: number): void {
    if (at >= this.#overAt || this.#ended) return
    clearTimeout(this.#over)
    this.#overAt = at
    // A timer, because whoever extends the leases may be waiting for a server that says nothing.
    this.#over = setTimeout(() => this.#endThoseThatAreOver(), Math.min(at - performance.now(), 2 ** 31 - 1))
  }

  #endThoseThatAreOver(): void {
    this.#overAt = Infinity
    const now = performance.now()
    for (const job of this.#extended()) {
      if (job.endsAt <= now) this.#lose(job, 'its lease is over, and the server did not extend it')
    }
    const nextAt = [...this.#held.values()].map((job) => (job.completing ? Math.max(job.endsAt, now + BUSY_MS) : job.endsAt))
    this.#endNotLaterThan(Math.min(...nextAt))
  }

  #lose(job: Held, why: string): void {
    this.letGo(job)
    if (job.isOver || job.completing || job.cancelReason === 'lost') return
    const fields = { event: 'lost', queue: job.queue, jobId: job.id, attempt: job.attempt }
    this.#report.log('warn', `job ${job.id} is no longer this worker's: ${why}`, fields)
    job.cancel('lost')
  }
}

/** As lock_timeout takes it, and no large part of their leases. */
function patience(jobs: Held[]): string {
  return `${Math.max(1, Math.min(PATIENCE_MS, Math.floor(Math.min(...jobs.map((job) => job.leaseMs)) / 6)))}ms`
}
