/** Workers that die, sleep, or lose their connection; and a server that goes away. */

import assert from 'node:assert/strict'
import { describe, mock, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import type { Worker } from '../src/index.js'
import { Link, Unreachable } from '../src/link.js'
import { eventually, PATIENCE_MS } from './server.js'
import { server, staged, withServer } from './stage.js'

/** The first answer to a statement with this in it is lost. Answers what was asked for. */
function loseAnswer(part: string): unknown[][] {
  const real = Link.prototype.fetch
  const lost: unknown[][] = []
  mock.method(Link.prototype, 'fetch', async function (this: Link, ...asked: Parameters<Link['fetch']>) {
    const rows = await real.apply(this, asked)
    if (!asked[0].includes(part) || rows.length === 0 || lost.length > 0) return rows
    lost.push(asked[1])
    await this.close()
    throw new Unreachable('the answer was lost')
  })
  return lost
}

describe('faults', { timeout: 240_000 }, () => {
  withServer()

  test('a lost answer to a claim leaves no job to nobody', staged(async (stage) => {
    const { db } = stage
    await db.queue('q', { lease: '1 hour' })
    await db.enqueueMany(5)
    const lost = loseAnswer('job_claim(')
    try {
      void stage.start(stage.worker().handler('q', () => undefined))
      await eventually(async () => (await db.count('completed')) === 5, '5 jobs')
    } finally {
      mock.restoreAll()
    }
    assert.ok(lost.length > 0)
    assert.deepEqual(await db.rows('SELECT DISTINCT attempt FROM pushy.jobs'), [{ attempt: 1 }])
    assert.equal(await db.value("SELECT given_back::int FROM pushy.stats WHERE queue = 'q'"), 5)
  }))

  test('a lost answer to a settlement changes nothing', staged(async (stage) => {
    const { db } = stage
    await db.queue()
    const lost = loseAnswer('jobs_settle(')
    try {
      void stage.start(stage.worker().handler('q', () => undefined))
      assert.equal((await db.reaches(await db.enqueue(), 'completed')).attempt, 1)
      assert.equal((await db.reaches(await db.enqueue(), 'completed')).attempt, 1)
    } finally {
      mock.restoreAll()
    }
    assert.equal(lost.length, 1)
    // Told again, it came too late, and that is no news.
    assert.deepEqual(stage.said.filter(({ event }) => event === 'refused'), [])
  }))

  test('a worker stopped for longer than its lease changes nothing', staged(async (stage) => {
    const { db } = stage
    await db.queue('q', { lease: '1 s', retry_delay: '0 s' })
    await db.rows('CREATE TABLE effects (job_id bigint)')
    const sleepy = stage.program('effect')
    const id = await db.enqueue({ slow: true })
    assert.equal(await sleepy.line(), `started ${id} 1`)
    // It has stopped itself; when its lease is over, another takes the job.
    const other = stage.program('effect')
    assert.equal(await other.line(), `started ${id} 2`)
    assert.deepEqual((await db.reaches(id, 'completed')).result, { attempt: 2 })
    other.child.kill('SIGTERM')
    assert.equal(await other.ended, 0)
    sleepy.child.kill('SIGCONT')
    // It is alive, and works on: its first job was refused and its effect rolled back.
    const second = await db.enqueue()
    assert.equal(await sleepy.line(), `started ${second} 1`)
    await db.reaches(second, 'completed')
    assert.deepEqual(await db.rows('SELECT job_id::int FROM effects ORDER BY 1'), [{ job_id: id }, { job_id: second }])
  }))

  test('killed workers lose and double nothing', staged(async (stage) => {
    const { db } = stage
    await db.queue('q', { lease: '1 s', retry_delay: '0 s' })
    await db.rows('CREATE TABLE effects (job_id bigint)')
    await db.enqueueMany(150)
    for (const victim of [stage.program('effect', '3'), stage.program('effect', '3')]) {
      for (let n = 0; n < 20; n++) await victim.line()
      victim.child.kill('SIGKILL')
    }
    stage.program('effect', '3')
    await eventually(async () => (await db.count('completed')) === 150, '150 jobs')
    const counted = await db.rows('SELECT count(*)::int AS all, count(DISTINCT job_id)::int AS jobs FROM effects')
    assert.deepEqual(counted, [{ all: 150, jobs: 150 }])
  }))

  test('SIGTERM lets handlers finish', staged(async (stage) => {
    const { db } = stage
    await db.queue()
    const program = stage.program('sleeper', '1000')
    const id = await db.enqueue()
    assert.equal(await program.line(), `started ${id}`)
    program.child.kill('SIGTERM')
    assert.equal(await program.ended, 0)
    assert.equal((await db.job(id)).state, 'completed')
  }))

  for (const kind of ['sleeper', 'stubborn']) {
    test(`SIGTERM releases what does not finish in time: ${kind}`, staged(async (stage) => {
      const { db } = stage
      await db.queue('q', { lease: '1 hour' })
      const program = stage.program(kind, '60000', '300')
      const ids = [await db.enqueue(), await db.enqueue(), await db.enqueue(), await db.enqueue(), await db.enqueue()]
      for (const _ of ids) assert.match((await program.line()) ?? '', /^started/)
      const waiting = await db.enqueue()
      const began = performance.now()
      program.child.kill('SIGTERM')
      assert.equal(await program.ended, 0)
      assert.ok(performance.now() - began < 6_000)
      for (const id of ids) {
        const { state, attempt } = await db.job(id)
        assert.deepEqual([state, attempt], ['available', 0])
      }
      assert.equal((await db.job(waiting)).worker, null)
      if (kind === 'sleeper') for (const _ of ids) assert.match((await program.line()) ?? '', /^cancelled \d+ Cancelled$/)
    }))
  }

  test('a second signal gives no more time', staged(async (stage) => {
    const { db } = stage
    await db.queue()
    const program = stage.program('sleeper', '60000', '60000')
    const id = await db.enqueue()
    await program.line()
    program.child.kill('SIGTERM')
    program.child.kill('SIGINT')
    assert.equal(await program.ended, 0)
    assert.equal((await db.job(id)).state, 'available')
  }))

  test('what was prefetched is released at once', staged(async (stage) => {
    const { db } = stage
    await db.queue('q', { lease: '1 hour' })
    await db.enqueueMany(8)
    const worker = stage.worker({ graceMs: 100 }).handler('q', { concurrency: 1, prefetch: 10 }, async (job) => {
      await sleep(30_000, undefined, { signal: job.signal })
    })
    const ended = stage.start(worker)
    await eventually(async () => (await db.count('running')) === 8, '8 claimed')
    await worker.stop()
    await ended
    const rows = await db.rows('SELECT state, attempt, count(*)::int AS jobs FROM pushy.jobs GROUP BY 1, 2')
    assert.deepEqual(rows, [{ state: 'available', attempt: 0, jobs: 8 }])
  }))

  test('a restart of the server is survived', staged(async (stage) => {
    const { db } = stage
    await db.queue('q', { lease: '1 hour' })
    let go = (): void => undefined
    const gone = new Promise<void>((resolve) => (go = resolve))
    const runs: number[] = []
    void stage.start(stage.worker().handler('q', async (job) => {
      runs.push(job.id)
      await gone
    }))
    const before = await db.enqueue()
    await eventually(() => runs.length, 'a start')
    server.stop()
    go()
    await eventually(() => stage.said.some(({ message }) => message.startsWith('settling jobs')), 'the settlement fails')
    server.start()
    assert.equal((await db.reaches(before, 'completed')).attempt, 1)
    const after = await db.enqueue()
    await db.reaches(after, 'completed')
    assert.deepEqual(runs, [before, after])
    assert.ok(stage.said.some(({ message }) => message.endsWith('works again')))
  }))

  test('handlers end when the server cannot extend their leases', staged(async (stage) => {
    const { db } = stage
    await db.queue('q', { lease: '1500 ms' })
    const heard: number[] = []
    void stage.start(stage.worker().handler('q', async (job) => {
      const began = performance.now()
      await sleep(job.attempt === 1 ? 30_000 : 0, undefined, { signal: job.signal }).catch((error: unknown) => {
        heard.push(performance.now() - began)
        throw error
      })
    }))
    const id = await db.enqueue()
    await db.reaches(id, 'running')
    server.stop()
    try {
      await eventually(() => heard.length, 'the handler is cancelled')
      // The server is stopped in this process too, and a slow machine takes its time for that.
      assert.ok((heard[0] ?? 0) < PATIENCE_MS / 3)
    } finally {
      server.start()
    }
    assert.equal((await db.reaches(id, 'completed')).attempt, 2)
  }))

  test('what cannot be claimed is said once and not asked for in a loop', staged(async (stage) => {
    const { db } = stage
    const backoffs: string[] = []
    await db.rows('CREATE ROLE stranger LOGIN')
    await db.queue('closed')
    const metrics = (event: string, queue: string): void => void (event === 'backoff' && backoffs.push(queue))
    void stage.start(stage.worker({ metrics }).handler('absent', () => undefined))
    void stage.start(stage.worker({}, { ...db.connection, user: 'stranger' }).handler('closed', () => undefined))
    await sleep(1500)
    const said = stage.said.filter(({ level }) => level === 'error').map(({ queue, sqlstate }) => `${queue} ${sqlstate}`)
    assert.deepEqual(said.sort(), ['absent 42704', 'closed 42501'])
    // With what to do about it.
    assert.ok(stage.said.some(({ message }) => /HINT: .*queue_grant/.test(message)))
    assert.ok(backoffs.length >= 2 && backoffs.length <= 6, String(backoffs.length))
    await db.queue('absent')
    await db.reaches(await db.enqueue({}, 'absent'), 'completed')
  }))

  test('a wait that is refused while claims are answered is said once, too', staged(async (stage) => {
    const { db } = stage
    const backoffs: string[] = []
    await db.rows('CREATE ROLE half LOGIN')
    await db.queue()
    await db.rows("SELECT pushy.queue_grant('q', 'half', 'claim')")
    await db.rows('REVOKE EXECUTE ON PROCEDURE pushy.job_claim_wait FROM PUBLIC')
    const metrics = (event: string, queue: string): void => void (event === 'backoff' && backoffs.push(queue))
    void stage.start(stage.worker({ metrics }, { ...db.connection, user: 'half' }).handler('q', () => undefined))
    await sleep(1500)
    const denied = stage.said.filter(({ message }) => message.includes('permission denied'))
    assert.equal(denied.length, 1)
    assert.ok(!stage.said.some(({ message }) => message.includes('works again')))
    assert.ok(backoffs.length >= 2 && backoffs.length <= 6, String(backoffs.length))
    await db.rows('GRANT EXECUTE ON PROCEDURE pushy.job_claim_wait TO PUBLIC')
    await db.reaches(await db.enqueue(), 'completed')
    await db.reaches(await db.enqueue(), 'completed')
    await eventually(async () => stage.said.some(({ message }) => message.includes('works again')), 'it works again')
  }))

  test('one outcome that is refused does not hold up the others', staged(async (stage) => {
    const { db } = stage
    await db.queue('q', { max_attempts: 1 })
    await db.enqueueMany(20)
    void stage.start(stage.worker().handler<number>('q', { concurrency: 20 }, async (job) => {
      await sleep(200)
      return job.args === 7 ? '\0' : 'fine'
    }))
    await eventually(async () => (await db.count('completed')) === 20, 'all completed')
    assert.equal(await db.value('SELECT count(*)::int FROM pushy.jobs WHERE result IS NULL'), 1)
  }))

  test('a terminated connection is opened again', staged(async (stage) => {
    const { db } = stage
    await db.queue()
    void stage.start(stage.worker().handler('q', () => undefined))
    for (let n = 0; n < 5; n++) {
      await db.reaches(await db.enqueue(), 'completed')
      await db.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pushy worker' AND datname = current_database()",
      )
    }
    assert.equal(await db.value('SELECT max(attempt) FROM pushy.jobs'), 1)
  }))

  test('a job whose row a stranger has locked does not hold up the others', staged(async (stage) => {
    const { db } = stage
    await db.queue('q', { lease: '3 s', max_attempts: 1 })
    await db.enqueueMany(20)
    const stranger = new pg.Client(db.connection)
    await stranger.connect()
    void stage.start(stage.worker().handler<number>('q', { concurrency: 40 }, async (job) => {
      await sleep(job.args % 2 === 0 ? 5_000 : 500)
    }))
    try {
      await eventually(async () => (await db.count('running')) === 20, '20 claimed')
      await stranger.query('BEGIN')
      // One that is to be settled, and one that is to be extended.
      await stranger.query("SELECT id FROM pushy_internal.live_job WHERE args IN ('7', '8') FOR UPDATE")
      await eventually(async () => (await db.count('completed')) === 18, '18 jobs')
      await stranger.query('ROLLBACK')
      await eventually(async () => (await db.count('running')) === 0, 'both end')
    } finally {
      await stranger.end()
    }
  }))

  test('a claim that is answered while the worker stops is given back', staged(async (stage) => {
    const { db } = stage
    await db.queue('q', { lease: '1 hour' })
    await db.enqueueMany(3)
    let started = 0
    const worker = stage.worker().handler('q', () => void started++)
    const real = Link.prototype.fetch
    mock.method(Link.prototype, 'fetch', async function (this: Link, ...asked: Parameters<Link['fetch']>) {
      const rows = await real.apply(this, asked)
      if (asked[0].includes('job_claim(') && rows.length > 0) {
        void worker.stop()
        await sleep(200)
      }
      return rows
    })
    try {
      await stage.start(worker)
    } finally {
      mock.restoreAll()
    }
    assert.equal(started, 0)
    assert.deepEqual(await db.rows('SELECT DISTINCT state, attempt FROM pushy.jobs'), [{ state: 'available', attempt: 0 }])
    assert.equal(await db.value("SELECT given_back::int FROM pushy.stats WHERE queue = 'q'"), 3)
  }))

  for (const prefetch of [0, 200]) {
    test(`2,000 jobs in few statements, prefetch ${prefetch}`, staged(async (stage) => {
      const { db } = stage
      await db.queue()
      await db.enqueueMany(2000)
      const statements: Record<string, number> = { claimed: 0, settled: 0 }
      const metrics = (event: string): void => void (event in statements && statements[event]!++)
      const began = performance.now()
      void stage.start(stage.worker({ metrics }).handler('q', { concurrency: 20, prefetch }, async () => undefined))
      await eventually(async () => (await db.count('completed')) === 2000, '2,000 jobs')
      const took = (performance.now() - began) / 1000
      console.log(`prefetch ${prefetch}: ${Math.round(2000 / took)} jobs/s, ${JSON.stringify(statements)}`)
      assert.ok(statements['claimed']! <= 700 && statements['settled']! <= 700)
    }))
  }

  test('through PgBouncer in transaction mode', staged(async (stage) => {
    const { db } = stage
    await db.queue()
    await db.enqueueMany(500)
    await server.pgbouncer(db.name, async (connection) => {
      const workers: Worker[] = [1, 2, 3].map(() => stage.worker({}, connection).handler('q', (job) => job.log('seen')))
      const ended = workers.map((worker) => stage.start(worker))
      await eventually(async () => (await db.count('completed')) === 500, '500 jobs')
      await db.reaches(await db.enqueue(), 'completed')
      assert.equal(await db.value('SELECT count(*)::int FROM pushy.job_logs'), 501)
      const began = performance.now()
      await Promise.all(workers.map((worker) => worker.stop()))
      await Promise.all(ended)
      // Those that waited in the server were woken there.
      assert.ok(performance.now() - began < 3_000)
      // And PgBouncer lives: one of Debian's dies of a cancel that ends with its request.
      const client = new pg.Client(connection)
      await client.connect()
      await client.end()
    })
  }))
})
