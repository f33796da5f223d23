/** A WebSocket with all subscriptions on it. */
import { ANSWER_MS, later, OPEN_MS, SILENCE_MS } from './link.js';
export class WebSocketLink {
    transport = 'websocket';
    #socket;
    #events;
    #waiting = [];
    #isIn = false;
    #isOver = false;
    #stopTimer;
    constructor(WebSocket, url, authority, events) {
        this.#events = events;
        const address = new URL('socket', url);
        address.protocol = address.protocol.replace('http', 'ws');
        this.#socket = new WebSocket(address.href);
        this.#stopTimer = later(OPEN_MS, () => this.#lose({ reason: 'no answer' }));
        this.#socket.onopen = () => {
            this.#authenticate(authority);
            // Who has a token need not wait for the answer; a ticket is asked about first.
            if (authority.kind === 'token')
                this.#subscribeAll();
        };
        this.#socket.onmessage = ({ data }) => this.#hear(String(data));
        this.#socket.onclose = ({ code, reason }) => this.#lose(ofClose(code, reason));
        // The close that follows says more.
        this.#socket.onerror = () => undefined;
    }
    subscribe(want) {
        this.#waiting.push(want);
        if (this.#isIn)
            this.#subscribeAll();
    }
    unsubscribe(id) {
        const waiting = this.#waiting.findIndex((want) => want.id === id);
        if (waiting >= 0)
            this.#waiting.splice(waiting, 1);
        else
            this.#send({ type: 'unsubscribe', id });
    }
    renew(authority) {
        this.#authenticate(authority);
    }
    check() {
        if (!this.#isIn || this.#isOver)
            return;
        this.#send({ type: 'ping' });
        this.#stopTimer();
        this.#stopTimer = later(ANSWER_MS, () => this.#lose({ reason: 'silent' }));
    }
    close() {
        this.#isOver = true;
        this.#stopTimer();
        this.#socket.close();
    }
    #authenticate({ kind, text }) {
        this.#send({ type: 'auth', [kind]: text });
    }
    #subscribeAll() {
        this.#isIn = true;
        for (const { id, channel, topics, cursor, latest, presence } of this.#waiting.splice(0)) {
            this.#send({ type: 'subscribe', id, channel, topics, latest, presence, ...(cursor === undefined ? {} : { after: cursor }) });
        }
    }
    #send(message) {
        // A socket that is closing says so by itself.
        if (!this.#isOver)
            this.#socket.send(JSON.stringify(message));
    }
    #hear(text) {
        if (this.#isOver)
            return;
        this.#stopTimer();
        this.#stopTimer = later(SILENCE_MS, () => this.check());
        const message = JSON.parse(text);
        switch (message.type) {
            case 'authenticated':
                this.#subscribeAll();
                this.#events.opened();
                break;
            case 'notice': {
                const { ids = [], ...notice } = message;
                this.#events.said(ids, notice);
                break;
            }
            case 'position':
                if (message.cursor !== undefined)
                    this.#events.position(message.cursor);
                break;
            case 'expiring':
                this.#events.expiring();
                break;
            case 'pong':
            case 'unsubscribed':
                break;
            case 'error':
                if (message.id === undefined)
                    this.#events.renewalRefused(message.code ?? '');
                else
                    this.#events.said([message.id], message);
                break;
            default: {
                const { id, ...said } = message;
                if (id !== undefined)
                    this.#events.said([id], said);
            }
        }
    }
    #lose(lost) {
        if (this.#isOver)
            return;
        this.close();
        this.#events.lost(lost);
    }
}
/** The frame's reason is JSON of the gateway's, or of somebody on the way. */
function ofClose(code, text) {
    try {
        const { reason, retry_ms } = JSON.parse(text);
        return { code, reason, ...(retry_ms === undefined ? {} : { retryMs: retry_ms }) };
    }
    catch {
        return { code, reason: text || 'the connection was lost' };
    }
}
