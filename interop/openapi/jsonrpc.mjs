// Calls JSON-RPC methods with the packages jayson and json-rpc-2.0, and prints what came back as one line of JSON.
import { promisify } from "node:util";
import jayson from "jayson";
import { JSONRPCClient } from "json-rpc-2.0";

const url = new URL(process.argv[2]);
const client = jayson.Client.http({ host: url.hostname, port: url.port, path: url.pathname });
const request = promisify(client.request.bind(client));
const failure = (response) => `${response.error.code} ${response.error.message}`;

const byName = await request("addsvc.sum", { a: 1, b: 2 });
const byPosition = await request("addsvc.concat", ["ab", "cd"]);
const zero = await request("addsvc.sum", { a: 0, b: 0 });
const nobody = await request("addsvc.divide", {});
const notified = await promisify(client.request.bind(client))("addsvc.sum", { a: 1, b: 1 }, null);
const batch = await request([
  client.request("addsvc.sum", { a: 20, b: 22 }),
  client.request("addsvc.sum", { a: 5, b: 5 }, null),
  client.request("addsvc.concat", { a: "x", b: "y" }),
]);

const other = new JSONRPCClient(async (payload) => {
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(payload),
  });
  if (response.status === 200) other.receive(await response.json());
  else if (payload.id !== undefined) throw new Error(response.statusText);
});
const sum = await other.request("addsvc.sum", { a: 3, b: 4 });
const overflow = await other.request("addsvc.sum", { a: 2147483647, b: 1 }).catch((e) => `${e.code} ${e.message}`);
other.notify("addsvc.sum", { a: 1, b: 1 });
const two = await other.requestAdvanced([
  { jsonrpc: "2.0", id: "a", method: "addsvc.sum", params: { a: 1, b: 1 } },
  { jsonrpc: "2.0", id: 7, method: "nobody.here" },
]);

console.log(
  JSON.stringify({
    jayson: [byName.result.v, byPosition.result.v, failure(zero), failure(nobody), notified ?? null, batch.map((r) => r.result.v)],
    other: [sum.v, overflow, two.map((r) => [r.id, r.result?.v ?? r.error.code])],
  }),
);
