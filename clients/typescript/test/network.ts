/** A network that goes silent or slow, between a worker and the server's socket. */

import { connect, createServer, type Server, type Socket } from 'node:net'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

export class Network {
  /** Nothing passes, either way, and nobody is told. */
  silent = false
  /** For each piece of 8 kB that the server says. */
  pauseMs = 0
  port = 0
  readonly #sockets = new Set<Socket>()
  #server: Server | undefined

  async open(folder: string): Promise<this> {
    this.#server = createServer((near) => void this.#connected(near, folder))
    await new Promise<void>((resolve) => this.#server!.listen(0, '127.0.0.1', resolve))
    this.port = (this.#server.address() as AddressInfo).port
    return this
  }

  async #connected(near: Socket, folder: string): Promise<void> {
    near.on('error', () => undefined)
    this.#sockets.add(near)
    while (this.silent) await sleep(20)
    const far = connect(`${folder}/.s.PGSQL.5432`)
    this.#sockets.add(far)
    far.on('error', () => undefined)
    void this.#pass(near, far, false)
    void this.#pass(far, near, true)
  }

  async #pass(from: Socket, to: Socket, isSlow: boolean): Promise<void> {
    try {
      for await (const chunk of from) {
        for (let at = 0; at < chunk.length; at += 8_192) {
          while (this.silent) await sleep(20)
          if (isSlow && this.pauseMs > 0) await sleep(this.pauseMs)
          if (!to.write(chunk.subarray(at, at + 8_192))) await new Promise((resolve) => to.once('drain', resolve).once('close', resolve))
        }
      }
    } catch {}
    to.destroy()
  }

  close(): void {
    this.silent = false
    for (const socket of this.#sockets) socket.destroy()
    this.#server?.close()
  }
}

export async function withNetwork(folder: string, use: (network: Network) => Promise<void>): Promise<void> {
  const network = await new Network().open(folder)
  try {
    await use(network)
  } finally {
    network.close()
  }
}
