/** Server-Sent Events, a request for each subscription: where no WebSocket comes through. By fetch and not by EventSource, because a token is sent as
 * a header, and a refusal has a reason. */
import { later, OPEN_MS, SILENCE_MS } from './link.js';
/** The gateway says something every `keep_alive`. */
const LONGEST_SILENCE_MS = 3 * SILENCE_MS;
/** The lines of https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream, as they come in pieces. */
export class EventParser {
    #rest = '';
    #id = '';
    #name = '';
    #data = [];
    #retryMs;
    get retryMs() {
        return this.#retryMs;
    }
    /** The events that are complete; one without data moves the id alone. */
    *feed(text) {
        const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
        this.#rest = lines.pop() ?? '';
        for (const line of lines) {
            if (line === '') {
                const event = { id: this.#id, name: this.#name || 'message', data: this.#data.join('\n') };
                this.#name = '';
                this.#data = [];
                yield event;
                continue;
            }
            const colon = line.indexOf(':');
            const field = colon < 0 ? line : line.slice(0, colon);
            const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
            if (field === 'id' && !value.includes('\0'))
                this.#id = value;
            else if (field === 'event')
                this.#name = value;
            else if (field === 'data')
                this.#data.push(value);
            else if (field === 'retry' && /^\d+$/.test(value))
                this.#retryMs = Number(value);
        }
    }
}
export class SseLink {
    transport = 'sse';
    #streams = new Map();
    #first;
    #isOver = false;
    #url;
    #fetch;
    #next;
    #events;
    constructor(fetch, url, first, next, events) {
        this.#fetch = fetch;
        this.#url = url;
        this.#first = first;
        this.#next = next;
        this.#events = events;
    }
    subscribe(want) {
        const abort = new AbortController();
        this.#streams.set(want.id, abort);
        void this.#read(want, abort).catch((error) => this.#lose({ reason: String(error) }));
    }
    unsubscribe(id) {
        this.#streams.get(id)?.abort();
        this.#streams.delete(id);
    }
    /** A stream cannot be told: it comes back with another one. */
    renew() {
        this.#lose({ code: 4101, reason: 'expired', retryMs: 0 });
    }
    check() {
        // There is nothing to ask by; its silence ends it.
    }
    close() {
        this.#isOver = true;
        for (const abort of this.#streams.values())
            abort.abort();
        this.#streams.clear();
    }
    async #authority(want) {
        const first = this.#first;
        if (first?.kind === 'ticket')
            this.#first = undefined;
        return first ?? (await this.#next(want));
    }
    async #read(want, abort) {
        const authority = await this.#authority(want);
        const address = new URL('events', this.#url);
        address.searchParams.set('channel', want.channel);
        for (const topic of want.topics)
            address.searchParams.append('topic', topic);
        if (want.cursor !== undefined)
            address.searchParams.set('after', want.cursor);
        if (want.latest)
            address.searchParams.set('latest', '1');
        if (authority.kind === 'ticket')
            address.searchParams.set('ticket', authority.text);
        const headers = authority.kind === 'token' ? { Authorization: `Bearer ${authority.text}` } : undefined;
        if (abort.signal.aborted)
            return;
        let stopTimer = later(OPEN_MS, () => abort.abort(new Error('no answer')));
        try {
            const response = await this.#fetch.call(undefined, address, { ...(headers ? { headers } : {}), signal: abort.signal, cache: 'no-store' });
            if (!response.ok || !response.body)
                return await this.#refused(want, response);
            if (!response.headers.get('content-type')?.startsWith('text/event-stream'))
                throw new Error('the answer is no stream of events');
            this.#events.opened();
            const parser = new EventParser();
            const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
            for (;;) {
                stopTimer();
                stopTimer = later(LONGEST_SILENCE_MS, () => abort.abort(new Error('silent')));
                const { done, value } = await reader.read();
                if (done)
                    return this.#lose({ reason: 'the stream ended' });
                for (const event of parser.feed(value)) {
                    if (abort.signal.aborted)
                        return;
                    this.#hear(want, event, parser.retryMs);
                }
            }
        }
        catch (error) {
            // An abort of ours is none of a stream that was closed or left.
            if (this.#streams.get(want.id) === abort)
                throw error;
        }
        finally {
            stopTimer();
        }
    }
    async #refused(want, response) {
        const { code = '', message = '' } = (await response.json().catch(() => ({})));
        const isAboutThis = ['bad_message', 'bad_channel', 'bad_topic', 'bad_cursor', 'denied'].includes(code);
        if (isAboutThis)
            return this.#events.said([want.id], { type: 'error', code, message });
        const after = Number(response.headers.get('retry-after'));
        this.#lose({ code: response.status, reason: message || response.statusText, ...(after > 0 ? { retryMs: 1000 * after } : {}) });
    }
    #hear(want, { id, name, data }, retryMs) {
        const heard = this.#streams.has(want.id) && !this.#isOver;
        if (!heard)
            return;
        if (data === '') {
            // Only this subscription's.
            if (id !== '')
                this.#events.said([want.id], { type: 'position', cursor: id });
            return;
        }
        const message = JSON.parse(data);
        if (name === 'message')
            this.#events.said([want.id], { ...message, type: 'notice' });
        else if (name === 'expiring')
            this.#events.expiring();
        else if (name === 'close') {
            const { code, said } = message;
            // A grant that is gone is this subscription's alone.
            if (code === 4102)
                this.#events.said([want.id], { type: 'error', code: 'denied', message: said.reason });
            else
                this.#lose({ code, reason: said.reason, ...(retryMs === undefined ? {} : { retryMs }) });
        }
        else {
            const { id: _, ...said } = message;
            this.#events.said([want.id], said);
        }
    }
    #lose(lost) {
        if (this.#isOver)
            return;
        this.close();
        this.#events.lost(lost);
    }
}
