/** Tells the server how attempts ended, and what they logged: many in one statement. */

import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { Backoff } from './backoff.js'
import { Bell } from './bell.js'
import type { Held } from './job.js'
import { type Link, mayPass, Unreachable } from './link.js'
import { encode, failed, MOST_ERROR, type Outcome, storable } from './outcome.js'
import type { Report } from './report.js'
import { LOG, SETTLE } from './statements.js'

const PACE_MS = 3 // between two statements while handlers are busy
const MOST_OUTCOMES = 1_000
const MOST_CHARACTERS = 4_000_000
const MOST_LINES = 10_000 // kept while the server cannot be reached, the newest
const WHAT = 'settling jobs'

interface Settlement {
  job: Held
  kind: Outcome['kind']
  encoded: string
  /** It may have been heard already, so that being too late is no news. */
  isRepeated: boolean
}

export class Settler {
  readonly #link: Link
  readonly #report: Report
  readonly #bell = new Bell()
  #pending: Settlement[] = []
  #lines: [string, string, number, string][] = []
  #isBusy = false
  readonly #end = new AbortController()
  #drained: (() => void) | undefined

  constructor(link: Link, report: Report) {
    this.#link = link
    this.#report = report
  }

  settle(job: Held, outcome: Outcome): void {
    this.#pending.push(settlement(job, outcome))
    this.#bell.ring()
  }

  log(job: Held, level: string, message: string): void {
    if (this.#lines.length >= MOST_LINES) this.#lines.shift()
    this.#lines.push([storable(message, MOST_ERROR), storable(level, 20), job.id, job.token])
    this.#bell.ring()
  }

  /** Whether all was told in time. */
  async drain(timeoutMs: number): Promise<boolean> {
    if (!this.#isBusy && this.#pending.length === 0 && this.#lines.length === 0) return true
    return await new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), timeoutMs)
      this.#drained = () => {
        clearTimeout(timer)
        resolve(true)
      }
    })
  }

  end(): void {
    this.#end.abort()
    this.#bell.ring()
  }

  async run(): Promise<void> {
    const backoff = new Backoff()
    let last = -Infinity
    for (;;) {
      await this.#bell.wait(this.#pending.length > 0 || this.#lines.length > 0 ? 0 : Infinity)
      if (this.#end.signal.aborted) return
      this.#isBusy = true
      const pauseMs = last + PACE_MS - performance.now()
      if (pauseMs > 0) await sleep(pauseMs)
      last = performance.now()
      const batch = this.#batch()
      const left = await this.#tell(batch)
      if (left.length > 0) {
        this.#pending.unshift(...left)
        const restMs = backoff.nextMs()
        this.#report.count('backoff', '', restMs / 1000)
        await sleep(restMs, undefined, { signal: this.#end.signal }).catch(() => undefined)
      } else {
        backoff.reset()
        this.#report.well(WHAT)
      }
      this.#isBusy = false
      if (this.#pending.length === 0 && this.#lines.length === 0) this.#drained?.()
    }
  }

  /** The first ones; those that are told again by themselves. */
  #batch(): Settlement[] {
    const repeated = this.#pending[0]?.isRepeated
    let room = MOST_CHARACTERS
    let size = 0
    for (const each of this.#pending) {
      if (size >= MOST_OUTCOMES || room <= 0 || each.isRepeated !== repeated) break
      room -= each.encoded.length
      size++
    }
    return this.#pending.splice(0, size)
  }

  /** Answers what is to be told again. */
  async #tell(batch: Settlement[]): Promise<Settlement[]> {
    try {
      await this.#log()
      if (batch.length > 0) await this.#send(batch)
      return []
    } catch (error) {
      if (error instanceof Unreachable) {
        this.#report.trouble(WHAT, error)
        for (const each of batch) each.isRepeated = true
        return batch
      }
      if (!(error instanceof pg.DatabaseError)) throw error
      if (batch.length > 1) return await this.#tellEach(batch)
      if (!mayPass(error)) return batch.flatMap((each) => this.#refused(each, error))
      this.#report.trouble(WHAT, error)
      return batch
    }
  }

  /** Each alone, because one that the server refuses must not hold up the others. */
  async #tellEach(batch: Settlement[]): Promise<Settlement[]> {
    const left: Settlement[] = []
    for (const [n, each] of batch.entries()) {
      const again = await this.#tell([each])
      left.push(...again)
      if (again.length > 0 && !this.#link.isOpen) return [...left, ...batch.slice(n + 1)]
    }
    return left
  }

  async #log(): Promise<void> {
    const lines = this.#lines
    if (lines.length === 0) return
    this.#lines = []
    try {
      await this.#link.fetch(LOG, [0, 1, 2, 3].map((column) => lines.map((line) => line[column])))
    } catch (error) {
      if (error instanceof Unreachable) {
        this.#lines = [...lines, ...this.#lines].slice(-MOST_LINES)
        throw error
      }
      this.#report.trouble('keeping log lines', error)
    }
  }

  async #send(batch: Settlement[]): Promise<void> {
    const began = performance.now()
    const outcomes = `[${batch.map((each) => each.encoded).join(',')}]`
    const rows = await this.#link.fetch(SETTLE, [outcomes])
    const took = (performance.now() - began) / 1000
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

  #refused(told: Settlement, error: pg.DatabaseError): Settlement[] {
    const { job, kind } = told
    const fields = { event: 'trouble', queue: job.queue, jobId: job.id, sqlstate: error.code }
    if (kind === 'complete' && error.code?.startsWith('22')) {
      this.#report.log('error', `the result of job ${job.id} cannot be stored: ${error.message}`, fields)
      return [settlement(job, failed(error))]
    }
    this.#report.log('error', `the outcome of job ${job.id} was refused, and its lease will run out: ${error.message}`, fields)
    return []
  }
}

function settlement(job: Held, outcome: Outcome): Settlement {
  try {
    return { job, kind: outcome.kind, encoded: encode(outcome, job.id, job.token), isRepeated: false }
  } catch (error) {
    return settlement(job, failed(error))
  }
}
