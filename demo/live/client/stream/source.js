/** Where a stream's subscriptions are fed from: a connection of its own, or one that tabs share. */
export {};
