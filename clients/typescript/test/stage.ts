/** Workers of a test, within its process or as processes of their own; stopped at its end. */

import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { after, before } from 'node:test'
import { type Connection, type Fields, type Level, type Logger, Worker, type WorkerOptions } from '../src/index.js'
import { type Database, Server } from './server.js'

export let server: Server

export function withServer(): void {
  before(async () => {
    server = await new Server().create()
  })
  after(() => server.remove())
}

export interface Said extends Fields {
  level: Level
  message: string
}

export class Stage {
  readonly said: Said[] = []
  readonly #workers: Worker[] = []
  readonly #programs: Program[] = []

  constructor(readonly db: Database) {}

  worker(options: WorkerOptions = {}, connection: Connection = this.db.connection): Worker {
    const keep = (level: Level) => (message: string, fields: Fields) => void this.said.push({ level, message, ...fields })
    const logger: Logger = { debug: keep('debug'), info: keep('info'), warn: keep('warn'), error: keep('error') }
    return new Worker(connection, { logger, ...options })
  }

  start(worker: Worker): Promise<void> {
    this.#workers.push(worker)
    return worker.start()
  }

  program(name: string, ...args: string[]): Program {
    const program = new Program(name, this.db.connection, args)
    this.#programs.push(program)
    return program
  }

  async end(): Promise<void> {
    for (const program of this.#programs) program.child.kill('SIGKILL')
    for (const worker of this.#workers) await worker.stop()
  }
}

/** A test with a database and workers of its own. */
export function staged(play: (stage: Stage) => Promise<void>): () => Promise<void> {
  return async () => {
    const stage = new Stage(await server.database())
    try {
      await play(stage)
    } finally {
      await stage.end()
    }
  }
}

export class Program {
  readonly child: ChildProcess
  readonly ended: Promise<number | null>
  readonly #lines: AsyncIterator<string>

  constructor(name: string, connection: object, args: string[]) {
    const programs = new URL('programs.js', import.meta.url).pathname
    this.child = spawn(process.execPath, [programs, name, JSON.stringify(connection), ...args], { stdio: ['ignore', 'pipe', 'ignore'] })
    this.ended = new Promise((resolve) => this.child.once('exit', (code) => resolve(code)))
    this.#lines = createInterface(this.child.stdout!)[Symbol.asyncIterator]()
  }

  async line(): Promise<string | undefined> {
    return (await this.#lines.next()).value
  }
}
