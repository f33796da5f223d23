/** A PostgreSQL server of the tests' own, with the extension as tools/build.sh dev has built it, and its databases. */

import { execFileSync, spawn } from 'node:child_process'
import { chownSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'

const ROOT = fileURLToPath(new URL('../../../../', import.meta.url))
const REAL = [`${ROOT}target/venv/bin/python`, `${ROOT}clients/dev/real_server.py`] as const
const PREPARE = readFileSync(`${ROOT}clients/dev/prepare.sql`, 'utf8')
export const PATIENCE_MS = Number(process.env['PUSHY_TEST_PATIENCE'] ?? 1) * 15_000
const isRoot = process.getuid?.() === 0

export async function eventually<T>(look: () => T | Promise<T>, what: string): Promise<T> {
  const giveUp = performance.now() + PATIENCE_MS
  for (;;) {
    const answer = await look()
    if (answer) return answer
    if (performance.now() > giveUp) throw new Error(`${what} did not come about: ${JSON.stringify(answer)}`)
    await sleep(10)
  }
}

function asPostgres(program: string, args: string[]): [string, string[]] {
  return isRoot ? ['runuser', ['-u', 'postgres', '--', program, ...args]] : [program, args]
}

function giveToPostgres(path: string): void {
  if (isRoot) chownSync(path, Number(execFileSync('id', ['-u', 'postgres'])), Number(execFileSync('id', ['-g', 'postgres'])))
}

export class Server {
  folder = ''

  async create(): Promise<this> {
    this.folder = this.#run('create')
    return this
  }

  #run(...args: string[]): string {
    return execFileSync(REAL[0], [REAL[1], ...args], { encoding: 'utf8' }).trim()
  }

  start(): void {
    this.#run('start', this.folder)
  }

  stop(mode = 'fast'): void {
    this.#run('stop', this.folder, mode)
  }

  remove(): void {
    this.#run('remove', this.folder)
  }

  connection(database: string): { host: string; user: string; database: string; port: number } {
    return { host: this.folder, user: 'postgres', database, port: 5432 }
  }

  async query(database: string, text: string, values: unknown[] = []): Promise<Record<string, unknown>[]> {
    const client = new pg.Client(this.connection(database))
    await client.connect()
    try {
      return (await client.query(text, values.length > 0 ? values : undefined)).rows
    } finally {
      await client.end()
    }
  }

  async database(options = ''): Promise<Database> {
    const name = `t${process.hrtime.bigint()}`
    await this.query('postgres', `CREATE DATABASE ${name} ${options}`)
    await this.query(name, PREPARE)
    return new Database(this, name)
  }

  /** PgBouncer in transaction mode, with fewer connections to the server than clients have. */
  async pgbouncer(database: string, use: (connection: object) => Promise<void>): Promise<void> {
    const folder = `${this.folder}/bouncer`
    mkdirSync(folder)
    writeFileSync(`${folder}/users.txt`, '"postgres" ""\n')
    writeFileSync(
      `${folder}/bouncer.ini`,
      `[databases]\n* = host=${this.folder}\n[pgbouncer]\nunix_socket_dir = ${folder}\nlisten_port = 6432\n` +
        `auth_type = trust\nauth_file = ${folder}/users.txt\npool_mode = transaction\ndefault_pool_size = 4\n`,
    )
    for (const path of [folder, `${folder}/users.txt`, `${folder}/bouncer.ini`]) giveToPostgres(path)
    const program = ['/usr/sbin/pgbouncer', '/usr/bin/pgbouncer'].find(existsSync) ?? 'pgbouncer'
    const [command, args] = asPostgres(program, ['-q', `${folder}/bouncer.ini`])
    const child = spawn(command, args, { stdio: 'ignore' })
    try {
      await eventually(() => existsSync(`${folder}/.s.PGSQL.6432`), "PgBouncer's socket")
      await use({ ...this.connection(database), host: folder, port: 6432 })
    } finally {
      child.kill('SIGTERM')
      await new Promise((resolve) => child.once('exit', resolve))
      rmSync(folder, { recursive: true })
    }
  }
}

export interface JobRow {
  state: string
  attempt: number
  result: unknown
  last_error: string | null
  last_sqlstate: string | null
  last_detail: string | null
  fraction: number | null
  message: string | null
  worker: string | null
}

export class Database {
  readonly connection: { host: string; user: string; database: string; port: number }

  constructor(
    readonly server: Server,
    readonly name: string,
  ) {
    this.connection = server.connection(name)
  }

  rows(text: string, ...values: unknown[]): Promise<Record<string, unknown>[]> {
    return this.server.query(this.name, text, values)
  }

  async value(text: string, ...values: unknown[]): Promise<unknown> {
    return Object.values((await this.rows(text, ...values))[0] ?? {})[0]
  }

  async queue(name = 'q', options: Record<string, unknown> = {}): Promise<void> {
    const named = Object.keys(options).map((option, n) => `, ${option} => $${n + 2}`)
    await this.rows(`SELECT pushy.queue_register($1${named.join('')})`, name, ...Object.values(options))
  }

  async enqueue(args: unknown = {}, queue = 'q'): Promise<number> {
    return Number(await this.value('SELECT pushy.enqueue($1, $2)', queue, JSON.stringify(args)))
  }

  async enqueueMany(jobs: number, queue = 'q'): Promise<void> {
    await this.rows('SELECT pushy.enqueue_many($1, ARRAY(SELECT to_jsonb(n) FROM generate_series(1, $2::int) n))', queue, jobs)
  }

  async job(id: number): Promise<JobRow> {
    return (await this.rows('SELECT * FROM seen WHERE id = $1', id))[0] as unknown as JobRow
  }

  async count(state: string): Promise<number> {
    return Number(await this.value('SELECT count(*) FROM pushy.jobs WHERE state = $1', state))
  }

  async logged(id: number): Promise<[unknown, unknown][]> {
    const rows = await this.rows('SELECT level, message FROM pushy.job_logs WHERE job_id = $1 ORDER BY line', id)
    return rows.map(({ level, message }) => [level, message])
  }

  async reaches(id: number, state: string): Promise<JobRow> {
    await eventually(async () => (await this.job(id)).state === state, `state ${state} of job ${id}`)
    return await this.job(id)
  }
}
