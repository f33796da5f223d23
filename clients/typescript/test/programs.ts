/** Workers that run as processes of their own: node programs.js NAME CONNECTION. Each prints a line for each job that it starts. */

import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { Worker } from '../src/index.js'

const [name, connectionText = '{}', ...args] = process.argv.slice(2)
const connection = JSON.parse(connectionText) as object
const say = (...words: unknown[]): void => void process.stdout.write(`${words.join(' ')}\n`)

const programs: Record<string, () => Worker> = {
  /** Sleeps for so many ms, with a grace of so many. */
  sleeper: () =>
    new Worker(connection, { graceMs: Number(args[1] ?? 25_000) }).handler('q', { concurrency: 5 }, async (job) => {
      say('started', job.id)
      try {
        await sleep(Number(args[0]), undefined, { signal: job.signal })
      } catch (error) {
        say('cancelled', job.id, (job.signal.reason as Error).name)
        throw error
      }
    }),

  /** Heeds no signal. */
  stubborn: () =>
    new Worker(connection, { graceMs: Number(args[1]) }).handler('q', { concurrency: 5 }, async (job) => {
      say('started', job.id)
      await sleep(60_000)
    }),

  /** Writes to a table and completes in the same transaction. */
  effect: () =>
    new Worker(connection).handler<{ slow?: boolean }>('q', { concurrency: Number(args[0] ?? 1) }, async (job) => {
      const client = new pg.Client(connection)
      await client.connect()
      try {
        say('started', job.id, job.attempt)
        await client.query('BEGIN')
        if (job.attempt === 1 && job.args.slow) process.kill(process.pid, 'SIGSTOP')
        await client.query('INSERT INTO effects VALUES ($1)', [job.id])
        await job.complete(client, { attempt: job.attempt })
        await client.query('COMMIT')
      } finally {
        await client.end()
      }
    }),
}

await programs[name ?? '']?.().run()
