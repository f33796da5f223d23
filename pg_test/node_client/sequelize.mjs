// Sequelize: replacements and binds, a managed transaction, a pool of one session, queryInterface for migrations.
import { notices, refusal, require, saw, server } from "./common.mjs";

const { DataTypes, QueryTypes, Sequelize } = require("sequelize");
const orm = new Sequelize(server.database, "postgres", null, { ...server, dialect: "postgres", logging: false, pool: { max: 1 } });
const one = (sql, options) => orm.query(sql, { type: QueryTypes.SELECT, plain: true, ...options });
const enqueue = (n, transaction) =>
  one("SELECT pushy.enqueue(:queue, :args::jsonb) AS id", { replacements: { queue: "q", args: JSON.stringify({ n }) }, transaction });
const wait = ({ id }) => one("SELECT state::text, result FROM pushy.job_wait($1)", { bind: [id] });

const rollback = orm.transaction(async (transaction) => {
  await enqueue(1, transaction);
  throw new Error("thought better of it");
});
await rollback.catch(() => {});
saw("committed", await wait(await orm.transaction((transaction) => enqueue(2, transaction))));
saw("jobs", await one("SELECT count(*)::int FROM pushy.jobs"));

const { id } = await one("SELECT pushy.enqueue(queue => :queue, args => :args::jsonb, delay => :delay::interval, unique_key => :key) AS id",
  { replacements: { queue: "q", args: JSON.stringify({ text: "it's ? :x $1" }), delay: "1 hour", key: "k" } });
saw("named", await one("SELECT args, (run_at - enqueued_at)::text AS delay FROM pushy.jobs WHERE id = $id", { bind: { id } }));
await one("SELECT pushy.subscription_create($1, $2::text[])", { bind: ["s", ["plain", '"Item News"']] });
saw("array", await one("SELECT channels FROM pushy.subscriptions"));

await one("SELECT pushy.queue_drop('q', force => true)");
saw("dropped", (await refusal(() => enqueue(3))).code);
await one("SELECT pushy.queue_register('q', 'see(jsonb)')");
saw("registered", await wait(await enqueue(3)));

const listener = new Sequelize(server.database, "postgres", null, { ...server, dialect: "postgres", logging: false });
const session = await listener.connectionManager.getConnection();
const next = notices(session);
const { channel } = await one("SELECT channel FROM pushy.watches");
await session.query(`LISTEN ${channel}`);

const Item = orm.define("Item", { title: DataTypes.TEXT, amount: DataTypes.INTEGER }, { tableName: "item", timestamps: false });
const item = await Item.create({ title: "a", amount: 1 });
saw("created", await next());
await item.update({ title: "b" });
await item.update({ amount: 2 });
saw("updated", await next());

const migration = orm.getQueryInterface();
await migration.changeColumn("item", "amount", { type: DataTypes.BIGINT, allowNull: false, defaultValue: 7 });
await migration.renameColumn("item", "amount", "total");
saw("watch", await one("SELECT columns, condition, state FROM pushy.watches"));
await orm.query("UPDATE item SET total = 5000000000");
saw("migrated", await next());
await migration.removeColumn("item", "title");
await orm.query("UPDATE item SET total = 3");
saw("removed", await next());

listener.connectionManager.releaseConnection(session);
await Promise.all([orm.close(), listener.close()]);
