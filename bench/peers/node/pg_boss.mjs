// pg-boss: `install`, `fill N HANDLER`, or `work OPTIONS`. Batches, with burst fetching while they come full:
// https://pgboss.io/api/workers
import pg from 'pg'
import { PgBoss } from 'pg-boss'
import { Count, INSERT, say, told } from './protocol.mjs'

const [verb, ...rest] = process.argv.slice(2)
const boss = new PgBoss({ database: process.env.PGDATABASE, supervise: false, schedule: false, max: 10 })
boss.on('error', (error) => console.error(error))
await boss.start()

if (verb === 'install') {
  await boss.createQueue('noop')
  await boss.createQueue('one_row')
} else if (verb === 'fill') {
  const [jobs, handler] = [Number(rest[0]), rest[1]]
  for (let n = 1; n <= jobs; n += 5000) {
    const length = Math.min(5000, jobs - n + 1)
    await boss.insert(handler, Array.from({ length }, (_, i) => ({ data: { n: n + i } })))
  }
} else {
  const { jobs, batchSize } = JSON.parse(rest[0])
  const count = new Count(jobs)
  const pool = new pg.Pool({ max: 10 })
  const handlers = {
    noop: async () => {},
    one_row: (batch) => Promise.all(batch.map(({ data: { n } }) => pool.query({ ...INSERT, values: [n] }))),
  }
  say('ready')
  await told('go')
  for (const [queue, work] of Object.entries(handlers)) {
    const options = { batchSize, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5, localConcurrency: 2 }
    await boss.work(queue, options, async (batch) => {
      count.begin()
      await work(batch)
      count.end(batch.length)
    })
  }
  say('running')
  await told('stop')
}
await boss.stop({ graceful: false })
process.exit(0)
