/** A worker: handlers of queues, and the life of the process that runs them. */

import { setTimeout as sleep } from 'node:timers/promises'
import { Bell } from './bell.js'
import type { Connection } from './connection.js'
import { Extender } from './extender.js'
import type { Job } from './job.js'
import { Link } from './link.js'
import { isGeneratorFunction } from './generators.js'
import { type Handler, Puller } from './puller.js'
import { type Logger, type Metrics, Report, toStandardError } from './report.js'
import { Settler } from './settler.js'

const CANCEL_GRACE_MS = 1_000
const SETTLE_MS = 3_000
// With the two above and one for closing less than 30 seconds, after which Kubernetes kills.
const GRACE_MS = 24_000

export interface WorkerOptions {
  /** What handlers have to end after SIGTERM or stop(); then they are aborted and their jobs released. */
  graceMs?: number
  metrics?: Metrics
  /** Lines of JSON on standard error if left out. */
  logger?: Logger
}

export interface HandlerOptions {
  /** How many run at a time in this process; 10 if left out. */
  concurrency?: number
  /** How many more are claimed and wait here, for queues of very short jobs; 0 if left out. */
  prefetch?: number
  /** How long a job is the worker's if it dies, extended while the handler runs; as the queue says if left out. */
  leaseMs?: number
}

// Each, by the type too: what is misspelt would be left out in silence.
const WORKER_OPTIONS = Object.keys({ graceMs: 0, metrics: 0, logger: 0 } satisfies Record<keyof WorkerOptions, 0>)
const LEVELS = Object.keys(toStandardError)
const HANDLER_OPTIONS = Object.keys({ concurrency: 0, prefetch: 0, leaseMs: 0 } satisfies Record<keyof HandlerOptions, 0>)

function requireKnown(what: string, options: object, known: string[]): void {
  const unknown = Object.keys(options).find((name) => !known.includes(name))
  if (unknown !== undefined) throw new TypeError(`${what} has no option "${unknown}": there are ${known.join(', ')}`)
}

function requireMs(name: string, value: unknown): void {
  if (!(typeof value === 'number' && value >= 0 && value < Infinity)) throw new RangeError(`${name} is a number of milliseconds, not ${show(value)}`)
}

function requireFunctions(what: string, object: object, names: string[]): void {
  const missing = names.find((name) => typeof (object as Record<string, unknown>)[name] !== 'function')
  if (missing !== undefined) throw new TypeError(`a ${what} has the functions ${names.join(', ')}, and this one no ${missing}`)
}

function show(value: unknown): string {
  return typeof value === 'string' ? `'${value}'` : String(value)
}

/** What it resolves to is the job's result. */
export type Handle<Args> = (job: Job<Args>) => unknown

/** Runs handlers for the jobs of one database. Opens two connections, and one for each queue. */
export class Worker {
  readonly #connection: Connection
  readonly #graceMs: number
  readonly #report: Report
  readonly #handlers = new Map<string, Handler>()
  readonly #stopped = new Bell()
  #stops = 0
  #hurry = new AbortController()
  #running: Promise<number> | undefined

  constructor(connection: Connection = {}, options: WorkerOptions = {}) {
    requireKnown('a worker', options, WORKER_OPTIONS)
    this.#connection = connection
    this.#graceMs = options.graceMs ?? GRACE_MS
    requireMs('graceMs', this.#graceMs)
    if (options.logger !== undefined) requireFunctions('logger', options.logger, LEVELS)
    if (options.metrics !== undefined && typeof options.metrics !== 'function') throw new TypeError(`metrics is a function, not ${show(options.metrics)}`)
    this.#report = new Report(options.logger ?? toStandardError, options.metrics)
  }

  /** Registers a function for a queue. */
  handler<Args = unknown>(queue: string, handle: Handle<Args>): this
  handler<Args = unknown>(queue: string, options: HandlerOptions, handle: Handle<Args>): this
  handler<Args = unknown>(queue: string, options: HandlerOptions | Handle<Args>, handle?: Handle<Args>): this {
    if (typeof options === 'function') return this.handler(queue, {}, options)
    // Types say most of this, and JavaScript has none.
    if (typeof queue !== 'string' || queue === '') {
      throw new TypeError(`a handler has the name of a queue, worker.handler('mails', …) for instance, not ${show(queue)}`)
    }
    if (typeof handle !== 'function') throw new TypeError(`the handler of queue "${queue}" is no function`)
    if (isGeneratorFunction(handle)) {
      throw new TypeError(`a handler returns, and does not yield, because nobody would run the body of its generator: that of queue "${queue}"`)
    }
    requireKnown('a handler', options, HANDLER_OPTIONS)
    const { concurrency = 10, prefetch = 0, leaseMs } = options
    if (!(Number.isInteger(concurrency) && concurrency >= 1 && Number.isInteger(prefetch) && prefetch >= 0)) {
      throw new RangeError(`concurrency is a whole number from 1 on and prefetch one from 0 on, not ${show(concurrency)} and ${show(prefetch)}`)
    }
    if (leaseMs === 0) {
      throw new RangeError('a lease of 0 ends with the connection that claimed it, which a worker shares: leave it out or make it longer')
    }
    if (leaseMs !== undefined) requireMs('leaseMs', leaseMs)
    if (this.#handlers.has(queue)) throw new Error(`queue "${queue}" has a handler already`)
    this.#handlers.set(queue, { queue, handle, concurrency, prefetch, leaseS: leaseMs === undefined ? null : leaseMs / 1000 })
    return this
  }

  /** Runs until SIGTERM or SIGINT; a second one gives the handlers no more time. Ends the process where a handler heeds no signal. */
  async run(): Promise<void> {
    const onSignal = (): void => void this.stop()
    process.on('SIGTERM', onSignal).on('SIGINT', onSignal)
    try {
      const abandoned = await this.#live()
      if (abandoned > 0) process.exit(0)
    } finally {
      process.off('SIGTERM', onSignal).off('SIGINT', onSignal)
    }
  }

  /** As run, within a program that handles signals itself and calls stop(). */
  async start(): Promise<void> {
    await this.#live()
  }

  /** Lets the worker end: no more claims, and the handlers have their grace; called again, they have none. Resolves at the end. */
  async stop(): Promise<void> {
    this.#stops++
    this.#stopped.ring()
    if (this.#stops > 1) this.#hurry.abort()
    await this.#running?.catch(() => undefined)
  }

  #live(): Promise<number> {
    if (this.#handlers.size === 0) throw new Error('a worker has at least one handler: register it with worker.handler(queue, function)')
    if (this.#running !== undefined) throw new Error('the worker runs already')
    this.#running = this.#work().finally(() => {
      this.#running = undefined
      this.#stops = 0
      this.#hurry = new AbortController()
    })
    return this.#running
  }

  /** Answers how many handlers were left behind. */
  async #work(): Promise<number> {
    const links = [new Link(this.#connection), new Link(this.#connection)] as const
    const extender = new Extender(links[1], this.#report)
    const settler = new Settler(links[0], this.#report, (job) => extender.letGo(job))
    const services = { settler, extender, report: this.#report }
    const pullers = [...this.#handlers.values()].map((handler) => new Puller(this.#connection, services, handler))
    const serving = [settler.run(), extender.run()]
    const pulling = pullers.map((puller) => puller.run())
    this.#report.log('info', `working for ${[...this.#handlers.keys()].join(', ')}`, { event: 'working' })
    try {
      // The others end by themselves by a fault of this library only.
      await Promise.race([this.#stopped.wait(), ...serving, ...pulling])
      return await this.#end(pullers, settler)
    } finally {
      settler.end()
      extender.end()
      await Promise.all([...pullers, ...links].map((each) => each.end()))
      await Promise.all(serving.map((service) => service.catch(() => undefined)))
    }
  }

  async #end(pullers: Puller[], settler: Settler): Promise<number> {
    this.#report.log('info', 'stopping', { event: 'stopping' })
    for (const puller of pullers) puller.stop()
    const drained = Promise.all(pullers.map((puller) => puller.drained())).then(() => true)
    const { signal } = this.#hurry
    const grace = sleep(this.#graceMs, false, { signal }).catch(() => false)
    let abandoned = 0
    if (!(await Promise.race([drained, grace]))) {
      for (const job of pullers.flatMap((puller) => [...puller.running])) job.cancel('stopping')
      const timer = new AbortController()
      await Promise.race([drained, sleep(CANCEL_GRACE_MS, false, timer).catch(() => false)])
      timer.abort()
      abandoned = pullers.reduce((sum, puller) => sum + puller.abandon(), 0)
    }
    this.#hurry.abort()
    if (await settler.drain(SETTLE_MS)) {
      this.#report.log('info', 'stopped', { event: 'stopped' })
    } else {
      const left = settler.left()
      const why = left > 0 ? `all outcomes were settled; the leases of ${left} will run out` : 'all log lines were kept'
      this.#report.log('error', `stopped before ${why}`, { event: 'stopped' })
    }
    return abandoned
  }
}
