/** Tells the server how attempts ended, and what they logged: many in one statement. */

import pg from 'pg'
import { Backoff } from './backoff.js'
import { Bell } from './bell.js'
import type { Held } from './job.js'
import { isOfOne, Link, mayPass, Unreachable } from './link.js'
import { begin, end, isSending, type Line, takeBack } from './lines.js'
import { completed, encode, failed, isNoJson, MOST_LINES as MOST_LINES_OF_JOB, type Outcome, plain } from './outcome.js'
import { type Report, text } from './report.js'
import { GLANCE, HASTE, LOG, PATIENCE, SETTLE } from './statements.js'
import { Stride } from './stride.js'

const PACE_MS = 3 // between two statements while handlers are busy
const HURRY_MS = 100 // between two attempts when the worker stops
const MOST_OUTCOMES = 1_000
const MOST_CHARACTERS = 4_000_000
const LONG = 1_000_000 // characters of an outcome that may be too long for the network
const MOST_LOSSES = 3 // of one that is so long, alone
const MOST_LINES = 10_000 // kept while the server cannot be reached, the newest
const WHAT = 'settling jobs'
const WHAT_WAITS = 'settling jobs whose rows are locked'
const WHAT_LINES = 'keeping log lines'

interface Settlement {
  job: Held
  kind: Outcome['kind']
  encoded: string
  /** It may have been heard already, so that being too late is no news. */
  isRepeated: boolean
  losses: number
}

/** What is to be said of a job whose row somebody has locked: the lines, then the outcome, alone and at a time of their own. */
class Waiting {
  lines: Line[] = []
  settlement: Settlement | undefined
  readonly backoff = new Backoff(100, 5_000)
  due = 0

  constructor(readonly job: Held) {}
}

export class Settler {
  readonly #link: Link
  readonly #report: Report
  readonly #settled: (job: Held) => void
  readonly #bell = new Bell()
  #pending: Settlement[] = []
  #underWay: Settlement[] = []
  #most = MOST_OUTCOMES
  #lines: Line[] = []
  readonly #waiting = new Map<Held, Waiting>()
  #isBusy = false
  /** The statement with lines that was sent last; it throws nothing. */
  #writing: Promise<void> = Promise.resolve()
  #hurries = false
  #ended = false
  #drained: (() => void) | undefined

  /** `settled` is called when the server has answered a job's outcome: until then somebody has to extend its lease. */
  constructor(link: Link, report: Report, settled: (job: Held) => void) {
    this.#link = link
    this.#report = report
    this.#settled = settled
  }

  settle(job: Held, outcome: Outcome): void {
    this.takeBack(job)
    this.#pending.push(this.#settlement(job, outcome))
    this.#bell.ring()
  }

  /** What was said behind a completion: the server keeps it if that was rolled back, or the log says that it came too late. */
  sayLate(job: Held): void {
    if (job.lines.some((line) => !line.isRepeated)) this.takeBack(job)
  }

  /** The lines that went with a completion come before those that were said since. */
  takeBack(job: Held): void {
    const lines = takeBack(job)
    if (lines.length === 0) return
    this.#lines = this.#lines.filter((line) => line.job !== job)
    for (const line of lines) this.log(line)
  }

  #settlement(job: Held, outcome: Outcome): Settlement {
    const { kind, fields } = outcome
    try {
      if (isNoJson(fields.result)) throw new TypeError(`${typeof fields.result} ${String(fields.result)}`)
      return { job, kind, encoded: encode(outcome, job.id, job.token), isRepeated: false, losses: 0 }
    } catch (error) {
      // An error of the handler's own is text by now.
      return kind === 'complete' ? this.#withoutResult(job, 'is no JSON', error) : this.#settlement(job, failed(error))
    }
  }

  /** Its handler has done its work, and must not do it again for what it answered. */
  #withoutResult(job: Held, why: string, error: unknown): Settlement {
    const fields = { event: 'trouble', queue: job.queue, jobId: job.id }
    this.#report.log('warn', `the result of job ${job.id} of queue ${job.queue} is not kept, because it ${why}: ${text(error)}`, fields)
    return this.#settlement(job, completed(undefined))
  }

  log(line: Line): void {
    if (this.#lines.length >= MOST_LINES) end(this.#lines.splice(0, 1), 'over')
    this.#lines.push(line)
    this.#bell.ring()
  }

  /** Until no line of the job is under way. */
  async written(job: Held): Promise<void> {
    while (isSending(job)) await this.#writing
  }

  /** Whether all was told in time. From now on no pause is longer than HURRY_MS, because the worker stops. */
  async drain(timeoutMs: number): Promise<boolean> {
    if (!this.#isBusy && this.#isIdle()) return true
    this.#hurries = true
    for (const waiting of this.#waiting.values()) waiting.due = 0
    this.#bell.ring()
    return await new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), timeoutMs)
      this.#drained = () => {
        clearTimeout(timer)
        resolve(true)
      }
    })
  }

  /** How many outcomes are not told yet. */
  left(): number {
    const waiting = [...this.#waiting.values()].flatMap(({ settlement }) => settlement ?? [])
    return new Set([...this.#pending, ...this.#underWay, ...waiting].map(({ job }) => job)).size
  }

  end(): void {
    this.#ended = true
    this.#bell.ring()
  }

  #isIdle(): boolean {
    return this.#pending.length === 0 && this.#lines.length === 0 && this.#waiting.size === 0
  }

  async run(): Promise<void> {
    const backoff = new Backoff()
    let last = -Infinity
    while (!this.#ended) {
      if (this.#pending.length === 0 && this.#lines.length === 0) {
        const due = Math.min(...[...this.#waiting.values()].map((waiting) => waiting.due))
        await this.#bell.wait(due - performance.now())
      }
      if (this.#ended) return
      this.#isBusy = true
      await this.#rest(last + PACE_MS - performance.now())
      last = performance.now()
      try {
        await this.#tell()
        backoff.reset()
        this.#report.well(WHAT)
      } catch (error) {
        if (!(error instanceof Unreachable) && !(error instanceof pg.DatabaseError)) throw error
        // The server takes nothing at all.
        this.#report.trouble(WHAT, error)
        const pauseMs = backoff.nextMs()
        this.#report.count('backoff', '', pauseMs / 1000)
        await this.#rest(pauseMs)
      }
      this.#isBusy = false
      if (this.#isIdle()) {
        this.#report.well(WHAT_WAITS)
        this.#drained?.()
      }
    }
  }

  /** Whatever comes meanwhile; cut short when the worker stops. */
  async #rest(pauseMs: number): Promise<void> {
    const until = performance.now() + pauseMs
    for (;;) {
      const hurry = this.#hurries ? Math.min(until, performance.now() + HURRY_MS) : until
      const left = hurry - performance.now()
      if (left <= 0 || this.#ended) return
      const hurried = this.#hurries
      await this.#bell.wait(left)
      if (hurried) return
    }
  }

  /** One batch of what is new, and one of those that wait: so neither holds up the other. */
  async #tell(): Promise<void> {
    const fresh: Line[] = []
    for (const line of this.#lines.splice(0)) (this.#waiting.get(line.job)?.lines ?? fresh).push(line)
    // At once, because the lines of a job come before its outcome.
    let batch = (this.#underWay = this.#batch())
    try {
      if (fresh.length > 0) {
        try {
          await this.#log(fresh)
        } catch (error) {
          this.#pending.unshift(...batch)
          throw error
        }
        batch = batch.filter((each) => !this.#waits(each))
      }
      if (batch.length > 0) await this.#settle(batch)
    } finally {
      this.#underWay = []
    }
    let first: Waiting | undefined
    for (const waiting of this.#waiting.values()) if (first === undefined || waiting.due < first.due) first = waiting
    if (first !== undefined && first.due <= performance.now()) await this.#tellAlone(first)
  }

  /** The first ones; those that are told again by themselves. */
  #batch(): Settlement[] {
    const repeated = this.#pending[0]?.isRepeated
    let room = MOST_CHARACTERS
    let size = 0
    for (const each of this.#pending) {
      if (size >= this.#most || room <= 0 || each.isRepeated !== repeated) break
      room -= each.encoded.length
      size++
    }
    return this.#pending.splice(0, size).filter((each) => !this.#waits(each))
  }

  /** Behind the lines of its job, if those wait. */
  #waits(told: Settlement): boolean {
    const waiting = this.#waiting.get(told.job)
    if (waiting !== undefined) waiting.settlement = told
    return waiting !== undefined
  }

  async #log(lines: Line[]): Promise<void> {
    try {
      await this.#write(lines, PATIENCE)
    } catch (error) {
      if (!(error instanceof pg.DatabaseError)) {
        this.#keep(lines)
        throw error
      }
      // Those of a job that the server refuses must not hold up, or lose, those of the others.
      const ofJobs = new Map<Held, Line[]>()
      for (const line of lines) ofJobs.set(line.job, [...(ofJobs.get(line.job) ?? []), line])
      await this.#logByStrides([...ofJobs.values()])
    }
  }

  async #logByStrides(ofJobs: Line[][]): Promise<void> {
    const stride = new Stride()
    stride.refused(ofJobs.length)
    for (let left = ofJobs; left.length > 0; ) {
      const some = left.slice(0, stride.of(left.length))
      try {
        await this.#write(some.flat(), GLANCE)
        stride.taken(some.length, left.length)
      } catch (error) {
        if (!(error instanceof pg.DatabaseError)) {
          this.#keep(left.flat())
          throw error
        }
        stride.refused(some.length)
        if (some.length > 1) continue
        const lines = some.flat()
        if (mayPass(error)) this.#wait((lines[0] as Line).job, error).lines.push(...lines)
        else this.#refuseLines(lines, error)
      }
      left = left.slice(some.length)
    }
  }

  /** Where the server cannot be reached. */
  #keep(lines: Line[]): void {
    this.#lines = [...lines, ...this.#lines].slice(-MOST_LINES)
  }

  async #settle(batch: Settlement[]): Promise<void> {
    const { asked } = this.#link
    try {
      await this.#send(batch, PATIENCE)
    } catch (error) {
      // One that the server refuses must not hold up the others.
      if (error instanceof pg.DatabaseError) return await this.#settleByStrides(batch)
      for (const each of batch) each.isRepeated = true
      this.#pending.unshift(...(this.#link.asked === asked ? batch : this.#afterLoss(batch, error)))
      throw error
    }
  }

  /** What is told next: what was too long for the network, or for the server's memory, would be so again. */
  #afterLoss(batch: Settlement[], error: unknown): Settlement[] {
    this.#most = Math.max(1, Math.floor(batch.length / 2))
    const first = batch[0] as Settlement
    if (batch.length > 1 || first.encoded.length < LONG) return batch
    first.losses++
    if (first.losses < MOST_LOSSES || first.kind !== 'complete') return batch
    return [{ ...this.#withoutResult(first.job, 'does not reach the server', error), isRepeated: true }]
  }

  async #settleByStrides(batch: Settlement[]): Promise<void> {
    const stride = new Stride()
    stride.refused(batch.length)
    for (let left = batch; left.length > 0; ) {
      const some = left.slice(0, stride.of(left.length))
      try {
        await this.#send(some, GLANCE)
        stride.taken(some.length, left.length)
      } catch (error) {
        if (!(error instanceof pg.DatabaseError)) {
          for (const each of some) each.isRepeated = true
          this.#pending.unshift(...left)
          throw error
        }
        stride.refused(some.length)
        if (some.length > 1) continue
        const each = some[0] as Settlement
        if (!mayPass(error)) {
          const instead = this.#refused(each, error)
          if (instead !== undefined) this.#pending.push(instead)
        } else {
          this.#wait(each.job, error).settlement = each
          if (!isOfOne(error)) {
            this.#pending.unshift(...left.slice(1))
            throw error
          }
        }
      }
      left = left.slice(some.length)
    }
  }

  #wait(job: Held, error: pg.DatabaseError): Waiting {
    const waiting = this.#waiting.get(job) ?? new Waiting(job)
    this.#waiting.set(job, waiting)
    this.#report.trouble(isOfOne(error) ? WHAT_WAITS : WHAT, error)
    const pauseMs = waiting.backoff.nextMs()
    this.#report.count('backoff', job.queue, pauseMs / 1000)
    waiting.due = performance.now() + (this.#hurries ? Math.min(pauseMs, HURRY_MS) : pauseMs)
    return waiting
  }

  async #tellAlone(waiting: Waiting): Promise<void> {
    let lines = waiting.lines.splice(0).slice(-MOST_LINES_OF_JOB)
    const { asked } = this.#link
    try {
      if (lines.length > 0) await this.#write(lines, HASTE)
      lines = []
      if (waiting.settlement !== undefined) await this.#send([waiting.settlement], HASTE)
    } catch (error) {
      const isLine = lines.length > 0
      if (!(error instanceof pg.DatabaseError) || mayPass(error)) waiting.lines.unshift(...lines)
      if (!(error instanceof pg.DatabaseError)) {
        if (!isLine && waiting.settlement !== undefined) {
          waiting.settlement.isRepeated = true
          if (this.#link.asked > asked) waiting.settlement = this.#afterLoss([waiting.settlement], error)[0]
        }
        throw error
      }
      if (mayPass(error)) {
        this.#wait(waiting.job, error)
        if (!isOfOne(error)) throw error
        return
      }
      if (isLine) {
        this.#refuseLines(lines, error)
        return // its outcome is told in the next round
      }
      if (waiting.settlement !== undefined) waiting.settlement = this.#refused(waiting.settlement, error)
      if (waiting.settlement !== undefined) return
    }
    if (waiting.lines.length === 0) this.#waiting.delete(waiting.job)
  }

  #refuseLines(lines: Line[], error: pg.DatabaseError): void {
    const left = lines.filter((line) => line.state === 'waiting')
    end(left, 'over')
    this.#report.trouble(WHAT_LINES, error)
  }

  async #write(all: Line[], lockTimeout: string): Promise<void> {
    const lines = begin(all)
    if (lines.length === 0) return
    const columns = [
      lines.map((line) => line.message),
      lines.map((line) => line.level),
      lines.map((line) => line.job.id),
      lines.map((line) => line.job.token),
    ]
    const writing = this.#link.fetch(LOG, [...columns, lockTimeout])
    // Of a promise that is done before anybody who waits for this one goes on.
    this.#writing = writing.then(
      () => end(lines, 'over'),
      (error: unknown) => {
        for (const line of lines) line.isRepeated ||= !(error instanceof pg.DatabaseError)
        end(lines, 'waiting')
      },
    )
    await this.#writing
    const kept = (await writing).map((row) => row[0] === 't')
    const late = lines.filter((line, n) => !kept[n] && !line.isRepeated)
    if (late.length > 0) {
      this.#report.log(
        'warn',
        `${late.length} of ${lines.length} log lines came too late, and are not kept: their jobs were completed, or other attempts have begun`,
        { event: 'refused', jobIds: [...new Set(late.map((line) => line.job.id))] },
      )
    }
  }

  async #send(batch: Settlement[], lockTimeout: string): Promise<void> {
    const began = performance.now()
    const outcomes = `[${batch.map((each) => each.encoded).join(',')}]`
    const rows = await this.#link.fetch(SETTLE, [outcomes, lockTimeout])
    const took = (performance.now() - began) / 1000
    if (batch.length >= this.#most && took * 1000 < Link.answerMs / 4) this.#most = Math.min(MOST_OUTCOMES, this.#most * 2)
    for (const each of batch) this.#settled(each.job)
    const queues = new Set(batch.map((each) => each.job.queue))
    this.#report.count('settled', queues.size === 1 ? (batch[0]?.job.queue ?? '') : '', took)
    const late = batch.length - Number(rows[0]?.[0])
    if (late > 0 && !batch[0]?.isRepeated) {
      for (let n = 0; n < late; n++) this.#report.count('refused', '', took)
      this.#report.log(
        'warn',
        `${late} of ${batch.length} outcomes came too late, and changed nothing: other attempts have begun, or the jobs were cancelled`,
        { event: 'refused', jobIds: batch.map((each) => each.job.id) },
      )
    }
  }

  /** What is to be told instead, if anything. */
  #refused(told: Settlement, error: pg.DatabaseError): Settlement | undefined {
    const { job, kind } = told
    const fields = { event: 'trouble', queue: job.queue, jobId: job.id, sqlstate: error.code }
    const isOfText = /^(22|0A)/.test(error.code ?? '')
    const isTooMuch = error.code?.startsWith('54') === true
    if (kind === 'complete' && (isOfText || isTooMuch) && told.encoded.includes('"result"')) {
      return this.#withoutResult(job, 'cannot be stored', error)
    }
    const inAscii = plain(told.encoded)
    // The encoding of the database has not what the error says.
    if (isOfText && inAscii !== told.encoded) return { ...told, encoded: inAscii }
    this.#report.log('error', `the outcome of job ${job.id} was refused, and its lease will run out: ${text(error)}`, fields)
    this.#settled(job)
    return undefined
  }
}
