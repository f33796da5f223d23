/** A worker of the demo's farm: farm_worker.mjs NAME, the database as libpq's environment says. */

import { setTimeout as sleep } from 'node:timers/promises'
import pg from '../clients/typescript/node_modules/pg/lib/index.js'
import { Worker } from '../clients/typescript/dist/index.js' // 'pushy-worker' in a program of your own

const name = process.argv[2]
const database = { host: process.env.PGHOST, port: Number(process.env.PGPORT), user: process.env.PGUSER, database: process.env.PGDATABASE }
const pool = new pg.Pool(database)
const worker = new Worker(database)

worker.handler('pictures', { concurrency: 4 }, async (job) => {
  await sleep(20 + 60 * Math.random()) // where a program would draw
  const client = await pool.connect()
  try {
    await client.query('BEGIN')
    await client.query('INSERT INTO made (job, worker, attempt) VALUES ($1, $2, $3)', [job.id, name, job.attempt])
    await job.complete(client)
    await client.query('COMMIT')
  } catch (error) {
    await client.query('ROLLBACK')
    throw error
  } finally {
    client.release()
  }
})

await worker.run()
await pool.end()
