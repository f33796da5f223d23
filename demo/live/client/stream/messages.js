/** What the gateway says, as docs/gateway-protocol.md has it, and what is kept of a subscription to come back with it. */
/** Moves a subscription on by what was said of it. */
export function advance(want, said) {
    switch (said.type) {
        case 'notice':
        case 'resync':
        case 'position':
            want.cursor = said.cursor;
            break;
        case 'subscribed':
            // One that came with a cursor has still to hear what is between.
            want.cursor ??= said.cursor;
    }
}
/** What comes next after a subscription or a connection was refused. */
export class StreamError extends Error {
    code;
    name = 'StreamError';
    constructor(
    /** A word of the protocol: `denied`, `bad_topic`, `unauthenticated`, `bad_message`, … */
    code, message) {
        super(message);
        this.code = code;
    }
}
