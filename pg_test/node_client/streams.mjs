// Hears the gateway by a WebSocket of `ws` and one of undici's, by undici's EventSource and its fetch: streams.mjs PORT TICKET TICKET TICKET TOKEN.
// Prints that each is there, and then what each hears first.
import { createRequire } from "node:module";
import process from "node:process";

const require = createRequire(new URL("../../target/node_client/", import.meta.url));
const ws = require("ws");
const undici = require("undici");
const [port, ofWs, ofUndici, ofEventSource, token] = process.argv.slice(2);
const saw = (what, value) => console.log(JSON.stringify([what, value]));

function bySocket(name, WebSocket, ticket) {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/socket`);
  socket.onopen = () => socket.send(JSON.stringify({ type: "auth", ticket }));
  socket.onmessage = ({ data }) => {
    const said = JSON.parse(data);
    if (said.type === "authenticated") socket.send(JSON.stringify({ type: "subscribe", id: 1, channel: "orders" }));
    if (said.type === "subscribed") saw(name, "subscribed");
    if (said.type === "notice") {
      saw(name, said.payload);
      socket.send('{"type":"nonsense"}');
    }
  };
  socket.onclose = ({ code, reason }) => saw(`${name} closed`, [code, JSON.parse(reason).reason]);
}

function byEventSource() {
  const source = new undici.EventSource(`http://127.0.0.1:${port}/events?channel=orders&ticket=${ofEventSource}`);
  source.addEventListener("subscribed", () => saw("EventSource", "subscribed"));
  source.onmessage = ({ data, lastEventId }) => {
    const { payload, cursor } = JSON.parse(data);
    saw("EventSource", payload);
    saw("EventSource id", lastEventId === cursor);
    source.close();
  };
}

async function byFetch() {
  const headers = { authorization: `Bearer ${token}` };
  const ask = (wait) => undici.fetch(`http://127.0.0.1:${port}/notices?channel=orders&wait=${wait}`, { headers });
  const answered = ask("60s").then((answer) => answer.json());
  saw("fetch", "subscribed");
  saw("fetch", (await answered).notices[0].payload);
}

bySocket("ws", ws.WebSocket, ofWs);
bySocket("undici", undici.WebSocket, ofUndici);
byEventSource();
await byFetch();
