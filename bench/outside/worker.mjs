// Pushy's worker on Node.js, as the bench asks peers: `work OPTIONS` (bench/peers/node/protocol.mjs).
import { Worker } from '../../clients/typescript/dist/index.js'
import { Count, now, say, told } from '../peers/node/protocol.mjs'

const { jobs } = JSON.parse(process.argv[3])
const { PGHOST: host, PGPORT: port, PGUSER: user, PGDATABASE: database } = process.env
const count = new Count(jobs)
const starts = []
const worker = new Worker({ host, port: Number(port), user, database })

// As graphile-worker's: 24 at a time, and 500 in its hands.
worker.handler('noop', { concurrency: 24, prefetch: 476 }, async () => {
  count.begin()
  count.end()
})
worker.handler('latency', { concurrency: 24 }, async (job) => {
  starts.push([job.args.n, now()])
})

say('ready')
await told('go')
// Until it is stopped.
const running = worker.start()
say('running')
await told('stop')
await worker.stop()
await running
await say('starts ' + JSON.stringify(starts))
process.exit(0)
