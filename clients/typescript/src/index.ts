/**
 * Workers for the job queues of Pushy, the PostgreSQL extension.
 *
 * ```ts
 * const worker = new Worker('postgresql:///app')
 * worker.handler('images', { concurrency: 4 }, async (job) => { ... })
 * await worker.run()
 * ```
 */
export type { Job, Queryable } from './job.js'
export type { Fields, Level, Logger, Metrics, MetricsEvent } from './report.js'
export type { Connection } from './connection.js'
export { AttemptEnded, Cancelled, LeaseLost } from './words.js'
export { Worker } from './worker.js'
export type { Handle, HandlerOptions, WorkerOptions } from './worker.js'
