/** A subscription as the program has it: an iterator over what is said, or functions that are called. */
import { advance, StreamError } from './messages.js';
const BUFFER = 1_000;
export class Subscription {
    channel;
    /** When the gateway has said yes for the first time; it fails where it says no. */
    ready;
    #options;
    #source;
    #nextId;
    #forget;
    #buffer;
    #callsBack;
    #queue = [];
    #want;
    #cursor;
    #isPaused = false;
    #state = 'connecting';
    #error;
    #wake = () => undefined;
    #isReady;
    constructor(source, nextId, channel, options, forget) {
        this.channel = channel;
        this.#source = source;
        this.#nextId = nextId;
        this.#options = options;
        this.#forget = forget;
        this.#buffer = Math.max(1, options.buffer ?? BUFFER);
        this.#callsBack = options.onNotice !== undefined;
        this.#cursor = options.after;
        this.#want = this.#newWant();
        let yes = () => undefined;
        let no = (_) => undefined;
        this.ready = new Promise((resolve, reject) => ([yes, no] = [resolve, reject]));
        // Whoever does not look at it hears of it elsewhere.
        this.ready.catch(() => undefined);
        this.#isReady = { yes, no };
        options.signal?.addEventListener('abort', () => this.close(), { once: true });
    }
    /** The number that it has at present: another after each pause. */
    get id() {
        return this.#want.id;
    }
    /** Of the last notice that the program was given: where it goes on from, kept over a reload of the page for example. */
    get cursor() {
        return this.#cursor;
    }
    get state() {
        return this.#state;
    }
    close() {
        this.#end(undefined);
    }
    /** For the stream. */
    start() {
        if (this.#options.signal?.aborted)
            this.close();
        if (this.#state !== 'closed')
            this.#source.subscribe({ ...this.#want });
    }
    /** For the stream: what was said about it. */
    hear(said) {
        if (this.#state === 'closed')
            return;
        advance(this.#want, said);
        switch (said.type) {
            case 'notice':
            case 'resync':
                this.#deliver(said);
                break;
            case 'presence':
                this.#options.onPresence?.(said);
                break;
            case 'subscribed':
                this.#state = said.live ? 'live' : 'resyncing';
                this.#isReady.yes();
                break;
            case 'live':
                this.#state = 'live';
                break;
            case 'away':
                this.#state = 'waiting';
                break;
            case 'error':
                this.#end(new StreamError(said.code, said.message));
        }
        if (this.#queue.length === 0)
            this.#cursor = this.#want.cursor;
    }
    /** For the stream: it is over for all. */
    end(error) {
        this.#end(error);
    }
    async *[Symbol.asyncIterator]() {
        if (this.#callsBack)
            throw new Error('notices go to onNotice: leave it out to iterate');
        try {
            for (;;) {
                const heard = this.#queue.shift();
                if (heard) {
                    this.#cursor = this.#queue.length === 0 && !this.#isPaused ? this.#want.cursor : heard.cursor;
                    this.#goOn();
                    yield heard;
                }
                else if (this.#error) {
                    throw this.#error;
                }
                else if (this.#state === 'closed') {
                    return;
                }
                else {
                    await new Promise((resolve) => (this.#wake = resolve));
                }
            }
        }
        finally {
            this.close();
        }
    }
    #newWant() {
        const { topics = [], latest = false, presence = false } = this.#options;
        return { id: this.#nextId(), channel: this.channel, topics, latest, presence, cursor: this.#want?.cursor ?? this.#options.after };
    }
    #deliver(heard) {
        if (this.#callsBack) {
            this.#cursor = heard.cursor;
            if (heard.type === 'notice')
                this.#options.onNotice?.(heard);
            else
                this.#options.onResync?.(heard);
            return;
        }
        this.#queue.push(heard);
        if (heard.type === 'resync')
            this.#options.onResync?.(heard);
        if (this.#queue.length >= this.#buffer && !this.#isPaused) {
            // Nothing is lost by it: when there is room it comes back with its cursor.
            this.#isPaused = true;
            this.#source.unsubscribe(this.#want.id);
            this.#want = this.#newWant();
        }
        this.#wake();
    }
    #goOn() {
        if (!this.#isPaused || this.#queue.length > this.#buffer / 2 || this.#state === 'closed')
            return;
        this.#isPaused = false;
        this.#source.subscribe({ ...this.#want });
    }
    #end(error) {
        if (this.#state === 'closed')
            return;
        this.#state = 'closed';
        this.#error = error;
        if (!this.#isPaused)
            this.#source.unsubscribe(this.#want.id);
        this.#forget();
        const said = error ?? new StreamError('closed', 'the subscription was closed');
        this.#isReady.no(said);
        if (error)
            this.#options.onError?.(error);
        this.#wake();
    }
}
