// Listens on a channel given as after LISTEN and prints each notice as JSON, until as many came as asked for.
import process from "node:process";
import { require } from "./common.mjs";

const pg = require("pg");
const [folder, port, database, channel, count] = process.argv.slice(2);
const client = new pg.Client({ host: folder, port: Number(port), database, user: "postgres" });
let heard = 0;
client.on("notification", async ({ channel, payload }) => {
  console.log(JSON.stringify({ channel, payload }));
  heard += 1;
  if (heard === Number(count)) await client.end();
});
await client.connect();
await client.query(`LISTEN ${channel}`);
console.log(JSON.stringify("listening"));
