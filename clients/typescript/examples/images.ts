/**
 * Makes thumbnails of images, and stores each exactly once: node images.js [connection]
 *
 *     CREATE TABLE thumbnail (url text PRIMARY KEY, bytes int NOT NULL);
 *     SELECT pushy.queue_register('images', lease => '30 s');
 *     SELECT pushy.enqueue('images', '{"url": "https://example.org/cat.jpg"}');
 */
import pg from 'pg'
import { Worker } from '../src/index.js' // 'pushy-worker' in a program of your own

const connection = process.argv[2] ?? process.env['DATABASE_URL'] ?? 'postgresql:///'
const pool = new pg.Pool({ connectionString: connection })
const worker = new Worker(connection)

interface Image {
  url: string
}

worker.handler<Image>('images', { concurrency: 4 }, async (job) => {
  if (!URL.canParse(job.args.url)) job.discard(`${job.args.url} is no URL`)
  // The signal ends the download when somebody cancels the job.
  const answer = await fetch(job.args.url, { signal: job.signal })
  if (answer.status === 429) job.snooze(60_000, 'asked to come back later')
  if (!answer.ok) throw new Error(`${job.args.url} answered ${answer.status}`)
  const image = new Uint8Array(await answer.arrayBuffer())
  job.progress(0.5, 'downloaded')
  const bytes = shrink(image).length

  const client = await pool.connect()
  try {
    await client.query('BEGIN')
    await client.query('INSERT INTO thumbnail VALUES ($1, $2) ON CONFLICT (url) DO UPDATE SET bytes = excluded.bytes', [job.args.url, bytes])
    await job.complete(client, { bytes })
    await client.query('COMMIT')
  } catch (error) {
    await client.query('ROLLBACK')
    throw error
  } finally {
    client.release()
  }
})

/** Where a program would call its image library. */
function shrink(image: Uint8Array): Uint8Array {
  return image.filter((_, n) => n % 10 === 0)
}

await worker.run()
await pool.end()
