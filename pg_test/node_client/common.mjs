// What the scenarios share: the server's address, the lines that the test reads, and notices.
import { createRequire } from "node:module";
import process from "node:process";

// tools/setup.sh installs the packages there.
export const require = createRequire(new URL("../../target/node_client/", import.meta.url));

const [host, port, database] = process.argv.slice(2);
export const server = { host, port: Number(port), database };

// One line for each thing seen: its name and what it was.
export const saw = (what, value) => console.log(JSON.stringify([what, value]));

// What a failed query said, in whatever wrapper: code, message, detail and hint of the server.
export async function refusal(query) {
  try {
    await query();
  } catch (error) {
    const { code, message, detail, hint } = error.original ?? error.driverError ?? error;
    return { code, message, detail, hint };
  }
  throw new Error("was not refused");
}

// The notices of a session of node-postgres, one after the other.
export function notices(session) {
  const heard = [];
  let wake = () => {};
  session.on("notification", (notice) => {
    heard.push(notice);
    wake();
  });
  return async () => {
    while (heard.length === 0) await new Promise((resolve) => { wake = resolve; });
    const { channel, payload } = heard.shift();
    return { channel, payload: JSON.parse(payload) };
  };
}
