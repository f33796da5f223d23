/** What was committed, in the order of its cursors, whatever happens to the network. */
import { Connection } from './connection.js';
import { Subscription } from './subscription.js';
import { SharedConnection } from './shared.js';
export class Stream {
    #source;
    #subscriptions = new Set();
    #watchers = new Set();
    #leave;
    #status = { state: 'idle' };
    #lastId = 0;
    /** `url`: of the gateway, `https://push.example.com`. */
    constructor(url, options) {
        if (options.onStatus)
            this.#watchers.add(options.onStatus);
        const connection = read(url, options);
        const events = {
            said: (id, said) => {
                for (const subscription of this.#subscriptions)
                    if (subscription.id === id)
                        subscription.hear(said);
            },
            status: (status) => this.#tell(status),
        };
        const connect = (of) => new Connection(connection, of);
        this.#source = options.share === undefined ? connect(events) : new SharedConnection(`pushy ${connection.url.href} ${options.share}`, connect, events);
        this.#leave = onWake(() => this.#source.wake());
    }
    subscribe(channel, options = {}) {
        if (this.#status.state === 'closed')
            throw new Error('the stream is closed');
        const subscription = new Subscription(this.#source, () => ++this.#lastId, channel, options, () => this.#subscriptions.delete(subscription));
        this.#subscriptions.add(subscription);
        subscription.start();
        return subscription;
    }
    get status() {
        return this.#status;
    }
    get state() {
        return this.#status.state;
    }
    /** Calls `watcher` whenever the state changes, until what it answers is called. */
    watch(watcher) {
        this.#watchers.add(watcher);
        return () => this.#watchers.delete(watcher);
    }
    /** All subscriptions, and the connection. */
    close() {
        this.#source.close();
    }
    #tell(status) {
        this.#status = status;
        if (status.state === 'closed') {
            this.#leave();
            for (const subscription of [...this.#subscriptions])
                subscription.end(status.error);
        }
        for (const watcher of this.#watchers)
            watcher(status);
    }
}
function read(url, options) {
    const { token, ticket, transport = 'auto' } = options;
    const fetchAuthority = token ?? ticket;
    if (!fetchAuthority || (token && ticket))
        throw new Error('say token or ticket: a function that answers one');
    const WebSocket = 'WebSocket' in options ? options.WebSocket : globalThis.WebSocket;
    if (transport === 'websocket' && !WebSocket)
        throw new Error('there is no WebSocket on this platform: pass one, for example of the package ws');
    const base = new URL(url);
    if (!base.pathname.endsWith('/'))
        base.pathname += '/';
    return {
        url: base,
        kind: token ? 'token' : 'ticket',
        fetchAuthority,
        transport,
        WebSocket,
        fetch: options.fetch ?? fetch,
        firstPauseMs: options.firstPauseMs ?? 250,
        mostPauseMs: options.mostPauseMs ?? 30_000,
    };
}
/** Calls `wake` when a browser says that the network is back, or the page is seen again. */
function onWake(wake) {
    if (typeof addEventListener !== 'function')
        return () => undefined;
    const seen = () => {
        if (typeof document === 'undefined' || document.visibilityState === 'visible')
            wake();
    };
    addEventListener('online', seen);
    if (typeof document !== 'undefined')
        document.addEventListener('visibilitychange', seen);
    return () => {
        removeEventListener('online', seen);
        if (typeof document !== 'undefined')
            document.removeEventListener('visibilitychange', seen);
    };
}
