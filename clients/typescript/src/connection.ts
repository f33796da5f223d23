/** What goes to the server and comes from it, without the types of node-postgres, which a program may not have installed. */

/** As node-postgres takes it: a URL, or an object with host, port, user, password, database, ssl ... */
export type Connection = string | object

/** One row: each value as the server writes it. */
export type Row = (string | null)[]
