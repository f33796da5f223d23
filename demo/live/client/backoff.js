/** Pauses between attempts to reach or to persuade the server: each up to twice the one before, and random, because a thousand
 * workers must not come back at one moment. */
export class Backoff {
    #firstMs;
    #mostMs;
    #pauseMs;
    constructor(firstMs = 100, mostMs = 30_000) {
        this.#firstMs = firstMs;
        this.#mostMs = mostMs;
        this.#pauseMs = firstMs;
    }
    nextMs() {
        const pause = this.#pauseMs;
        this.#pauseMs = Math.min(this.#mostMs, pause * 2);
        return pause * (0.5 + Math.random() / 2);
    }
    reset() {
        this.#pauseMs = this.#firstMs;
    }
}
