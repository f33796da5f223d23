// TypeORM: a transaction of the entity manager, a pool of one session, a query runner's schema builder for migrations.
import { notices, refusal, require, saw, server } from "./common.mjs";

const { DataSource, EntitySchema } = require("typeorm");

const Item = new EntitySchema({
  name: "Item",
  tableName: "item",
  columns: { id: { type: Number, primary: true, generated: true }, title: { type: "text" }, amount: { type: Number } },
});
const settings = { type: "postgres", ...server, username: "postgres", poolSize: 1, entities: [Item] };
const source = await new DataSource(settings).initialize();
const one = async (sql, values, by = source) => (await by.query(sql, values))[0];
const enqueue = (n, by) => one("SELECT pushy.enqueue($1, $2) AS id", ["q", { n }], by);
const wait = ({ id }) => one("SELECT state::text, result FROM pushy.job_wait($1)", [id]);

const rollback = source.transaction(async (manager) => {
  await enqueue(1, manager);
  throw new Error("thought better of it");
});
await rollback.catch(() => {});
saw("committed", await wait(await source.transaction((manager) => enqueue(2, manager))));
saw("jobs", await one("SELECT count(*)::int FROM pushy.jobs"));

const { id } = await one("SELECT pushy.enqueue(queue => $1, args => $2::jsonb, delay => $3::interval, unique_key => $4) AS id",
  ["q", { text: "it's ? :x $1" }, "1 hour", "k"]);
saw("named", await one("SELECT args, (run_at - enqueued_at)::text AS delay FROM pushy.jobs WHERE id = $1", [id]));
await one("SELECT pushy.subscription_create($1, $2)", ["s", ["plain", '"Item News"']]);
saw("array", await one("SELECT channels FROM pushy.subscriptions"));

await one("SELECT pushy.queue_drop('q', force => true)");
saw("dropped", (await refusal(() => enqueue(3))).code);
await one("SELECT pushy.queue_register('q', 'see(jsonb)')");
saw("registered", await wait(await enqueue(3)));

const listener = await new DataSource(settings).initialize();
const runner = listener.createQueryRunner();
const next = notices(await runner.connect());
const { channel } = await one("SELECT channel FROM pushy.watches");
await runner.query(`LISTEN ${channel}`);

const items = source.getRepository(Item);
const item = await items.save({ title: "a", amount: 1 });
saw("created", await next());
await items.save({ ...item, title: "b" });
await items.save({ ...item, title: "b", amount: 2 });
saw("updated", await next());

// Another type is another column here: the old one is dropped, with what is in it, and that is refused.
const migration = source.createQueryRunner();
const change = async () => {
  const table = await migration.getTable("item");
  const wide = table.findColumnByName("amount").clone();
  Object.assign(wide, { type: "bigint", default: "7" });
  await migration.changeColumn(table, "amount", wide);
};
saw("refused", await refusal(change));
await migration.query("SELECT pushy.unwatch('item')");
await change();
await migration.query("SELECT pushy.watch('item', channel => '\"Item News\"', columns => '{amount}', condition => 'NEW.amount > 0', payload => 'row')");
await migration.renameColumn("item", "amount", "total");
saw("watch", await one("SELECT columns, condition, state FROM pushy.watches", [], migration));
await migration.query("UPDATE item SET total = 5000000000");
saw("migrated", await next());
await migration.dropColumn("item", "title");
await migration.query("UPDATE item SET total = 3");
saw("removed", await next());

await Promise.all([migration.release(), runner.release()]);
await Promise.all([source.destroy(), listener.destroy()]);
