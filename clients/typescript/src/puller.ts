/** One queue of a worker: claims as many jobs as there is room for, starts them, and sleeps in the server while there are none. */

import { randomUUID } from 'node:crypto'
import { hostname } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { Backoff } from './backoff.js'
import { Bell } from './bell.js'
import type { Connection } from './connection.js'
import type { Extender } from './extender.js'
import { isGenerator } from './generators.js'
import { Held, type Job, type Keeper } from './job.js'
import type { Line } from './lines.js'
import { Link, Unreachable } from './link.js'
import { type Outcome, RELEASED } from './outcome.js'
import type { Level, MetricsEvent, Report } from './report.js'
import type { Settler } from './settler.js'
import { CLAIM, WAIT } from './statements.js'

const MOST_JOBS = 1_000 // of one claim, as the server allows
const MOST_PATIENCE = 20 // times as long as an answer usually may take: for one job that needs longer than that
const WAIT_S = 60 // then it asks again, so that a connection that died unseen is noticed

export interface Handler {
  queue: string
  handle: (job: Job<never>) => unknown
  concurrency: number
  prefetch: number
  leaseS: number | null
}

export interface Services {
  settler: Settler
  extender: Extender
  report: Report
}

/** The queue is not for workers that share a connection. */
class Bound extends Error {
  override name = 'Bound'
}

/** A claim that was not answered yet. Repeated under the same name, it answers what the server has given to that name. */
interface Request {
  name: string
  maxJobs: number
  /** How many statements its connection had sent before. */
  since: number
}

export class Puller implements Keeper {
  readonly queue: string
  readonly leaseS: number | null
  readonly running = new Set<Held>()
  readonly #handler: Handler
  readonly #services: Services
  readonly #link: Link
  readonly #ready: Held[] = []
  readonly #changed = new Bell()
  readonly #stop = new AbortController()
  readonly #close = new AbortController()
  readonly #who = `${hostname().slice(0, 64)}:${process.pid}:${randomUUID()}`
  readonly #what: string
  #request: Request | undefined
  /** The leases of the queue end with the connection. */
  #isBound = false
  /** The last wait has not answered: that a claim does is not enough to be well. */
  #isWaitRefused = false
  #requests = 0
  #most = MOST_JOBS
  /** How many times as long as usual the next answer may take. */
  #patience = 1
  #pulling: Promise<void> | undefined

  constructor(connection: Connection, services: Services, handler: Handler) {
    this.queue = handler.queue
    this.leaseS = handler.leaseS
    this.#handler = handler
    this.#services = services
    this.#link = new Link(connection)
    this.#what = `claiming jobs of queue ${handler.queue}`
  }

  log(line: Line): void {
    this.#services.settler.log(line)
  }

  takeBack(job: Held): void {
    this.#services.settler.takeBack(job)
  }

  written(job: Held): Promise<void> {
    return this.#services.settler.written(job)
  }

  text(message: string): string {
    return this.#link.isUtf8 ? message : message.replace(/[^\0-\x7f]/gu, '?')
  }

  reportSoon(job: Held): void {
    this.#services.extender.reportSoon(job)
  }

  /** Until stop(). */
  run(): Promise<void> {
    this.#pulling = this.#pull()
    return this.#pulling
  }

  /** No more claims. One whose answer is on its way is waited for, because its jobs would be leased to nobody. */
  stop(): void {
    for (const job of this.#ready.splice(0)) job.cancelReason === 'lost' ? this.#drop(job) : this.#giveBack(job)
    this.#stop.abort()
    this.#changed.ring()
  }

  /** Nothing is asked for, and no handler runs. */
  async drained(): Promise<void> {
    await this.#pulling
    while (this.running.size > 0) await this.#changed.wait()
  }

  /** Releases what still runs: the handlers had their time. */
  abandon(): number {
    const left = [...this.running].filter((job) => !job.isOver)
    for (const job of left) job.cancelReason === 'lost' ? this.#drop(job) : this.#giveBack(job)
    return left.length
  }

  async end(): Promise<void> {
    this.#close.abort()
    await this.#link.end()
  }

  /** Whether the server may have given jobs to the name of a request. */
  #owed(): boolean {
    return this.#request !== undefined && !this.#close.signal.aborted && this.#link.asked > this.#request.since
  }

  get #stopping(): boolean {
    return this.#stop.signal.aborted
  }

  async #pull(): Promise<void> {
    const backoff = new Backoff()
    const vain = new Backoff(5, 200)
    let wasTold = false
    while (!this.#stopping || this.#owed()) {
      try {
        if (this.#request === undefined) {
          const room = await this.#room()
          if (this.#stopping) return
          // To find that nothing has changed, one job is enough.
          this.#request = { name: `${this.#who}:${++this.#requests}`, maxJobs: this.#isBound ? 1 : room, since: this.#link.asked }
        }
        const asked = this.#request.maxJobs
        const jobs = await this.#claim(this.#request)
        this.#request = undefined
        if (this.#stopping) {
          for (const job of jobs) this.#giveBack(job)
          return
        }
        if (!this.#isWaitRefused) {
          this.#services.report.well(this.#what)
          backoff.reset()
        }
        for (const job of jobs) this.#admit(job)
        if (jobs.length > 0) vain.reset()
        // Others were faster. If that goes on, the wait is of no use.
        else if (wasTold) await this.#sleep(vain.nextMs())
        wasTold = jobs.length < asked && (await this.#wait())
      } catch (error) {
        if (error instanceof Unreachable) this.#isWaitRefused = false
        // The server said no, so this name holds nothing. After any other error it may hold jobs.
        if (error instanceof pg.DatabaseError || error instanceof Bound) this.#request = undefined
        else if (error instanceof Unreachable && error.isLate && this.#request !== undefined) this.#askLess(this.#request)
        if (this.#stopping && !this.#owed()) return
        // A fault of this library is no reason to leave the other queues.
        if (!(error instanceof Unreachable) && this.#request !== undefined) await this.#link.close()
        const pauseMs = backoff.nextMs()
        this.#services.report.trouble(this.#what, error, { queue: this.queue })
        this.#services.report.count('backoff', this.queue, pauseMs / 1000)
        await this.#sleep(pauseMs)
      }
    }
  }

  /** An answer that is too long for the network would be too long again; that of one job is given more time instead. */
  #askLess(request: Request): void {
    if (request.maxJobs > 1) {
      this.#most = request.maxJobs = Math.floor(request.maxJobs / 2)
      return
    }
    this.#patience = Math.min(MOST_PATIENCE, this.#patience * 2)
    const seconds = (this.#patience * Link.answerMs) / 1000
    this.#services.report.log(
      'warn',
      `one job of queue ${this.queue} was not answered in time: its arguments may be too long for this network; the next answer may take ${seconds} s`,
      { event: 'slow', queue: this.queue },
    )
  }

  /** Cut short by stop(), unless a claim is to be repeated. */
  async #sleep(pauseMs: number): Promise<void> {
    const { signal } = this.#owed() ? this.#close : this.#stop
    await sleep(pauseMs, undefined, { signal }).catch(() => undefined)
  }

  async #room(): Promise<number> {
    for (;;) {
      const room = this.#handler.concurrency + this.#handler.prefetch - this.running.size - this.#ready.length
      if (room > 0 || this.#stopping) return Math.min(room, this.#most)
      await this.#changed.wait()
    }
  }

  async #claim(request: Request): Promise<Held[]> {
    const sentAt = performance.now()
    const rows = await this.#link.fetch(CLAIM, [this.queue, request.maxJobs, this.leaseS, request.name], {
      timeoutMs: this.#patience * Link.answerMs,
      signal: this.#close.signal,
      unsent: this.#owed() ? undefined : this.#stop.signal,
    })
    if (performance.now() - sentAt < Link.answerMs) this.#patience = 1
    if (rows.length >= this.#most && performance.now() - sentAt < Link.answerMs / 4) this.#most = Math.min(MOST_JOBS, this.#most * 2)
    if (rows.length > 0) this.#services.report.count('claimed', this.queue, (performance.now() - sentAt) / 1000)
    const jobs = rows.map((row) => new Held(this, sentAt, row))
    this.#isBound = jobs.some((job) => job.leaseMs === Infinity)
    if (this.#isBound) {
      // By their tokens, and with the connection left open, because a lease that ends with its session is charged.
      for (const job of jobs) this.#giveBack(job)
      throw new Bound(`the leases of queue "${this.queue}" end with the connection, which a worker shares: give its handler a lease`)
    }
    return jobs
  }

  async #wait(): Promise<boolean> {
    if (this.#stopping) return false
    const options = { timeoutMs: WAIT_S * 1000 + Link.answerMs, signal: this.#stop.signal }
    let isReady = false
    this.#isWaitRefused = true
    try {
      const rows = await this.#link.fetch(WAIT, [this.queue, WAIT_S], options)
      isReady = rows[0]?.[0] === 't'
    } catch (error) {
      // A statement_timeout that is shorter, or somebody has cancelled it: a wait that is over.
      if (!(error instanceof pg.DatabaseError && error.code === '57014')) throw error
    }
    this.#isWaitRefused = false
    return isReady
  }

  #admit(job: Held): void {
    this.#services.extender.hold(job)
    if (this.running.size < this.#handler.concurrency) void this.#run(job)
    else this.#ready.push(job)
  }

  async #run(job: Held): Promise<void> {
    this.running.add(job)
    job.startedAt = performance.now()
    this.#services.report.count('started', this.queue, (job.startedAt - job.claimedAt) / 1000)
    let ended: { result: unknown } | { error: unknown }
    try {
      if (job.unreadable !== undefined) throw job.unreadable
      const result = await this.#handler.handle(job as Job<unknown> as Job<never>)
      if (isGenerator(result)) throw new TypeError('the handler returned a generator, whose body nobody runs')
      ended = { result }
    } catch (error) {
      ended = { error }
    }
    this.running.delete(job)
    this.#changed.ring()
    if (!job.isOver) {
      job.isOver = true
      const outcome = job.outcome(ended)
      this.#settle(job, outcome)
      this.#tell(job, outcome)
    }
    while (this.#ready.length > 0 && this.running.size < this.#handler.concurrency) {
      const waited = this.#ready.shift() as Held
      if (waited.cancelReason === undefined) void this.#run(waited)
      else this.#drop(waited)
    }
  }

  #settle(job: Held, outcome: Outcome | undefined): void {
    // Its lease is extended until the outcome is answered, which may take longer: the handler's own transaction is over.
    job.completing = false
    if (outcome !== undefined) return this.#services.settler.settle(job, outcome)
    this.#services.extender.letGo(job)
    this.#services.settler.sayLate(job)
  }

  #tell(job: Held, outcome: Outcome | undefined): void {
    const event: MetricsEvent = outcome?.event ?? (job.cancelReason === 'lost' ? 'lost' : 'completed')
    const seconds = (performance.now() - job.startedAt) / 1000
    this.#services.report.count(event, this.queue, seconds)
    const level: Level = event === 'completed' ? 'debug' : event === 'failed' ? 'warn' : 'info'
    const why = outcome?.fields.error === undefined ? '' : `: ${outcome.fields.error}`
    const fields = { event, queue: this.queue, jobId: job.id, attempt: job.attempt, seconds }
    this.#services.report.log(level, `job ${job.id} of queue ${this.queue} ${event}${why}`, fields)
  }

  /** Unstarted, or still running when the worker ends. */
  #giveBack(job: Held): void {
    job.isOver = true
    this.#settle(job, RELEASED)
    this.#tell(job, RELEASED)
  }

  /** Its lease ended while it waited here, or its handler did not heed that. */
  #drop(job: Held): void {
    job.isOver = true
    this.#tell(job, undefined)
  }
}
