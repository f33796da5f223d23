/** One connection of the worker, opened when it is first needed and again after it broke. */

import { connect, type Socket } from 'node:net'
import pg from 'pg'
import type { Connection, Row } from './connection.js'

export interface FetchOptions {
  /** Then the connection is given up, because its answer does not come; half a minute if left out. */
  timeoutMs?: number
  /** Cancels the statement in the server. */
  signal?: AbortSignal
  /** Gives up before the statement is sent, while the connection is opened; `signal` does so, too. */
  unsent?: AbortSignal | undefined
}

/** The server was not reached, or its answer was lost: where it was asked, it may have done so. */
export class Unreachable extends Error {
  override name = 'Unreachable'
  /** There was no answer in time. */
  readonly isLate: boolean

  constructor(why: string, { isLate = false, cause }: { isLate?: boolean; cause?: unknown } = {}) {
    super(why, { cause })
    this.isLate = isLate
  }
}

/** The server may say otherwise when it is asked again: a conflict, a time-out, a lock, a limit, a restart. */
export function mayPass(error: pg.DatabaseError): boolean {
  return /^(08|25006|40|53|55P03|57|58)/.test(error.code ?? '')
}

/** Whether, of what may pass, it is one job that is in the way: the server takes others meanwhile. */
export function isOfOne(error: pg.DatabaseError): boolean {
  return /^(40|55P03|57014)/.test(error.code ?? '')
}

/** By code, because the word for FATAL is in the server's language. */
const ENDS_SESSION = /^(08|57P|25P03|28|53300)/

const CANCEL_MS = 1_000 // for the server to end a statement that is given up; then the connection is closed
const END_MS = 500

/** What node-postgres has, and its types do not say. */
interface Internals {
  connection: {
    stream: Socket
    on(event: 'parameterStatus', heard: (said: { parameterName: string; parameterValue: string }) => void): void
  }
  processID: number
  secretKey: number
  host: string
  port: number
}

export class Link {
  /** How long an answer may take. */
  static answerMs = 30_000
  readonly #config: pg.ClientConfig
  #client: pg.Client | undefined
  #opening: pg.Client | undefined
  #hasEnded = false
  /** How many statements were sent. */
  asked = 0
  /** As far as it is known: the database has every character. */
  isUtf8 = false

  constructor(connection: Connection) {
    this.#config = {
      application_name: 'pushy worker',
      connectionTimeoutMillis: 10_000,
      keepAlive: true,
      keepAliveInitialDelayMillis: 30_000,
      ...(typeof connection === 'string' ? { connectionString: connection } : connection),
    }
  }

  /** Runs one statement; throws Unreachable, or pg.DatabaseError where the server refuses it. */
  async fetch(text: string, values: unknown[], options: FetchOptions = {}): Promise<Row[]> {
    const client = this.#client ?? (await this.#open([options.signal, options.unsent]))
    if (options.signal?.aborted) throw new Unreachable('the worker ends')
    const timers: NodeJS.Timeout[] = []
    const timeoutMs = options.timeoutMs ?? Link.answerMs
    let isLate = false
    const giveUp = (): void => this.#drop(client)
    const cancel = (): void => {
      requestCancel(client)
      timers.push(setTimeout(giveUp, CANCEL_MS))
    }
    const late = (): void => {
      isLate = true
      cancel()
    }
    timers.push(setTimeout(late, timeoutMs))
    options.signal?.addEventListener('abort', cancel)
    this.asked++
    try {
      // Without a name, so that no statement stays prepared: the next one may go to another session of a pooler.
      const query = { text, values, rowMode: 'array' as const, types: { getTypeParser: () => (value: string) => value } }
      return (await client.query<Row>(query as pg.QueryArrayConfig)).rows
    } catch (error) {
      if (!isLate && error instanceof pg.DatabaseError && !ENDS_SESSION.test(error.code ?? '')) throw error
      this.#drop(client)
      throw new Unreachable(isLate ? `no answer in ${timeoutMs / 1000} s` : (error as Error).message, { isLate, cause: error })
    } finally {
      for (const timer of timers) clearTimeout(timer)
      options.signal?.removeEventListener('abort', cancel)
    }
  }

  async close(): Promise<void> {
    const client = this.#client
    if (client === undefined) return
    this.#client = undefined
    const timer = setTimeout(() => destroy(client), END_MS)
    await client.end().catch(() => undefined)
    clearTimeout(timer)
  }

  /** No statement is sent any more, and none is waited for. */
  async end(): Promise<void> {
    this.#hasEnded = true
    if (this.#opening !== undefined) destroy(this.#opening)
    await this.close()
  }

  async #open(until: (AbortSignal | undefined)[]): Promise<pg.Client> {
    if (this.#hasEnded || until.some((signal) => signal?.aborted)) throw new Unreachable('the worker ends')
    const client = new pg.Client(this.#config)
    const giveUp = (): void => destroy(client)
    for (const signal of until) signal?.addEventListener('abort', giveUp)
    this.#opening = client
    // Without a listener an idle connection that breaks would end the program.
    client.on('error', () => this.#drop(client))
    client.on('end', () => this.#drop(client))
    let encoding: string | undefined
    ;(client as unknown as Internals).connection.on('parameterStatus', ({ parameterName, parameterValue }) => {
      if (parameterName === 'server_encoding') encoding = parameterValue
      this.isUtf8 = encoding === 'UTF8'
    })
    try {
      await client.connect()
      // There any bytes are text, and the server would refuse a whole claim for one job that is no UTF-8, again and again. Poolers
      // know of this setting.
      if (encoding === 'SQL_ASCII') await client.query("SET client_encoding = 'SQL_ASCII'")
    } catch (error) {
      destroy(client)
      throw new Unreachable((error as Error).message || String(error), { cause: error })
    } finally {
      this.#opening = undefined
      for (const signal of until) signal?.removeEventListener('abort', giveUp)
    }
    this.#client = client
    return client
  }

  #drop(client: pg.Client): void {
    if (this.#client === client) this.#client = undefined
    destroy(client)
  }
}

function destroy(client: pg.Client): void {
  ;(client as unknown as Internals).connection.stream.destroy()
}

/** A CancelRequest: a connection of its own, as the protocol has it. Where a proxy refuses it, the statement's connection is closed. */
function requestCancel(client: pg.Client): void {
  const { host, port, processID, secretKey } = client as unknown as Internals
  const message = Buffer.alloc(16)
  message.writeInt32BE(16, 0)
  message.writeInt32BE(80877102, 4)
  message.writeInt32BE(processID, 8)
  message.writeInt32BE(secretKey, 12)
  const socket = host.startsWith('/') ? connect(`${host}/.s.PGSQL.${port}`) : connect(port, host)
  socket.on('error', () => undefined)
  socket.setTimeout(CANCEL_MS, () => socket.destroy())
  // The other side ends it, as for libpq: PgBouncer 1.18 dies of an end that comes with the request.
  socket.write(message)
}
