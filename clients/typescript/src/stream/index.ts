/**
 * What is published on channels of Pushy, the PostgreSQL extension, in a browser or Node.js, by its gateway.
 *
 * ```ts
 * const stream = new Stream('https://push.example.com', { token: () => fetchToken() })
 * for await (const heard of stream.subscribe('orders', { topics: ['order/42'], after: cursor })) { ... }
 * ```
 */
export type { Asked, Fetch } from './authority.js'
export { type Notice, type Presence, type Resync, StreamError } from './messages.js'
export type { State, Status } from './source.js'
export { Stream, type StreamOptions } from './stream.js'
export type { Heard, SubscribeOptions, Subscription, SubscriptionState } from './subscription.js'
export type { WebSocketClass, WebSocketLike } from './websocket.js'
