/** A database with a gateway, as the server runs it, and what stands between it and its clients. */

import { createHmac } from 'node:crypto'
import { createConnection, createServer, type AddressInfo, type Server as TcpServer, type Socket } from 'node:net'
import { type Database, eventually, PATIENCE_MS } from './server.js'
import type { Heard, Subscription } from '../src/stream/index.js'

export function token(secret: string, claims: Record<string, unknown> = {}): string {
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')
  const head = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ exp: Math.floor(Date.now() / 1000) + 600, ...claims })}`
  return `${head}.${createHmac('sha256', secret).update(head).digest('base64url')}`
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

export class Gateway {
  secret = ''
  port = 0

  constructor(readonly db: Database) {}

  get url(): string {
    return `http://127.0.0.1:${this.port}`
  }

  async start(options = ''): Promise<this> {
    const { db } = this
    this.port = await freePort()
    await db.rows(`DO $$ BEGIN CREATE ROLE web; EXCEPTION WHEN duplicate_object THEN NULL; END $$`)
    await db.rows(`SELECT pushy.channel_grant('orders', 'web')`)
    this.secret = String(await db.value(`SELECT pushy.gateway_key_register('app', role => 'web')`))
    await db.rows(`ALTER DATABASE ${db.name} SET pushy.gateway_options = '${options}'`)
    await db.rows(`ALTER DATABASE ${db.name} SET pushy.gateway_listen = '127.0.0.1:${this.port}'`)
    return await this.ready()
  }

  async ready(): Promise<this> {
    const answers = async (path: string): Promise<boolean> => {
      const headers = { Authorization: `Bearer ${this.token()}` }
      return await fetch(this.url + path, { headers }).then(({ ok }) => ok, () => false)
    }
    // Whose key is known, and not only the server.
    await eventually(() => answers('/notices?channel=orders&wait=0s'), 'a gateway that is ready')
    return this
  }

  token(claims: Record<string, unknown> = {}): string {
    return token(this.secret, claims)
  }

  async ticket(channel: string, subject: string): Promise<string> {
    return String(await this.db.value(`WITH as_web AS MATERIALIZED (SELECT set_config('role', 'web', true))
      SELECT pushy.ticket_create(ARRAY[$1], subject => $2) FROM as_web`, channel, subject))
  }

  position(): Promise<string> {
    return this.db.value('SELECT pushy.log_position()').then(String)
  }
}

/** Between a client and the gateway: it cuts what goes through it, and lets nothing through. */
export class Wire {
  #server: TcpServer | undefined
  readonly #sockets = new Set<Socket>()
  port = 0
  isCut = false
  /** Answers an upgrade as a proxy that knows of none. */
  refusesUpgrades = false
  connections = 0
  upgrades = 0

  async start(to: number): Promise<this> {
    this.#server = createServer((client) => {
      this.connections += 1
      if (this.isCut) return void client.destroy()
      const gateway = createConnection(to, '127.0.0.1')
      for (const socket of [client, gateway]) {
        this.#sockets.add(socket)
        socket.on('error', () => undefined)
        socket.on('close', () => {
          this.#sockets.delete(socket)
          client.destroy()
          gateway.destroy()
        })
      }
      client.on('data', (data) => {
        if (data.includes('pgrade: websocket')) {
          this.upgrades += 1
          if (this.refusesUpgrades) return void client.end('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
        }
        gateway.write(data)
      })
      gateway.on('data', (data) => client.write(data))
    })
    await new Promise<void>((resolve) => this.#server?.listen(0, '127.0.0.1', resolve))
    this.port = (this.#server?.address() as AddressInfo).port
    return this
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`
  }

  cut(): void {
    for (const socket of this.#sockets) socket.destroy()
  }

  stop(): void {
    this.cut()
    this.#server?.close()
  }
}

/** The next of them, with a deadline. */
export async function take(subscription: Subscription | AsyncIterator<Heard>, count: number): Promise<Heard[]> {
  const iterator = Symbol.asyncIterator in subscription ? subscription[Symbol.asyncIterator]() : subscription
  const heard: Heard[] = []
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`heard ${JSON.stringify(heard)}, not ${count}`)), PATIENCE_MS)
  })
  try {
    while (heard.length < count) {
      const { value, done } = await Promise.race([iterator.next(), late])
      if (done) break
      heard.push(value)
    }
  } finally {
    clearTimeout(timer)
  }
  return heard
}

export const payloads = (heard: readonly Heard[]): string[] => heard.map((one) => (one.type === 'notice' ? one.payload : one.type))
