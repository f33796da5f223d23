// Knex: positional and named bindings, a transaction, a pool of one session, its schema builder for migrations.
import { notices, refusal, require, saw, server } from "./common.mjs";

const Knex = require("knex");
const settings = { client: "pg", connection: { ...server, user: "postgres" }, pool: { min: 0, max: 1 } };
const knex = Knex(settings);
const one = async (...query) => (await knex.raw(...query)).rows[0];
const enqueue = async (n, by = knex) => (await by.select(by.raw("pushy.enqueue(?, ?) AS id", ["q", { n }])))[0];
const wait = ({ id }) => one("SELECT state::text, result FROM pushy.job_wait(?)", [id]);

const transaction = await knex.transaction();
await enqueue(1, transaction);
await transaction.rollback();
saw("committed", await wait(await knex.transaction((by) => enqueue(2, by))));
saw("jobs", await one("SELECT count(*)::int FROM pushy.jobs"));

const { id } = await one("SELECT pushy.enqueue(queue => :queue, args => :args, delay => :delay, unique_key => :key) AS id",
  { queue: "q", args: { text: "it's ? :x $1" }, delay: "1 hour", key: "k" });
saw("named", await knex("pushy.jobs").first("args", knex.raw("(run_at - enqueued_at)::text AS delay")).where({ id }));
await one("SELECT pushy.subscription_create(?, ?)", ["s", ["plain", '"Item News"']]);
saw("array", await knex("pushy.subscriptions").first("channels"));

await one("SELECT pushy.queue_drop('q', force => true)");
saw("dropped", (await refusal(() => enqueue(3))).code);
await one("SELECT pushy.queue_register('q', 'see(jsonb)')");
saw("registered", await wait(await enqueue(3)));

const listener = Knex(settings);
const session = await listener.client.acquireConnection();
const next = notices(session);
const { channel } = await knex("pushy.watches").first("channel");
await session.query(`LISTEN ${channel}`);

await knex("item").insert({ title: "a", amount: 1 });
saw("created", await next());
await knex("item").update({ title: "b" });
await knex("item").update({ amount: 2 });
saw("updated", await next());

await knex.schema.alterTable("item", (table) => table.bigInteger("amount").notNullable().defaultTo(7).alter());
await knex.schema.alterTable("item", (table) => table.renameColumn("amount", "total"));
saw("watch", await knex("pushy.watches").first("columns", "condition", "state"));
await knex("item").update({ total: 5000000000 });
saw("migrated", await next());
await knex.schema.alterTable("item", (table) => table.dropColumn("title"));
await knex("item").update({ total: 3 });
saw("removed", await next());

listener.client.releaseConnection(session);
await Promise.all([knex.destroy(), listener.destroy()]);
