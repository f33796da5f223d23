// graphile-worker: `install`, or `work OPTIONS`. Settings are those of its performance page:
// https://worker.graphile.org/docs/performance
import { EventEmitter, once } from 'node:events'
import { run, runMigrations } from 'graphile-worker'
import { Logger } from 'graphile-worker'
import { Count, INSERT, now, say, told } from './protocol.mjs'

const [verb, json] = process.argv.slice(2)
const logger = new Logger(() => (level, message) => level === 'error' && console.error(message))
const connectionString = `postgres:///${process.env.PGDATABASE}`

if (verb === 'install') {
  await runMigrations({ preset: { worker: { connectionString, logger } } })
} else {
  const { jobs, localQueue, tells } = JSON.parse(json)
  const count = new Count(jobs)
  const starts = []
  const handler = (work) => async (payload, helpers) => {
    count.begin()
    await work(payload, helpers)
    count.end()
  }
  const worker = {
    connectionString, logger, concurrentJobs: 24, maxPoolSize: 25, noHandleSignals: true,
    ...(localQueue ? { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 } : {}),
  }
  const taskList = {
    noop: handler(async () => {}),
    one_row: handler(({ n }, helpers) => helpers.withPgClient((client) => client.query({ ...INSERT, values: [n] }))),
    latency: handler(async ({ n }) => starts.push([n, now()])),
  }
  say('ready')
  await told('go')
  const events = new EventEmitter()
  const listening = once(events, 'pool:listen:success')
  if (tells) events.on('job:complete', () => say('completed'))
  const runner = await run({ preset: { worker }, taskList, events })
  await listening
  say('listening')
  await told('stop')
  await runner.stop()
  await say('starts ' + JSON.stringify(starts))
  process.exit(0)
}
