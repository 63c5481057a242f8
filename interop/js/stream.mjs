// Takes streams: as a client that knows of none, and as one that does. Usage: node stream.mjs KIND URL
import { all, open, say } from "./lib.mjs";

const { nc, headers, inbox, untilEmpty } = await open(...process.argv.slice(2));
const step = (name, value) => say({ step: name, value });

// Items, and an empty message at the end.
const take = async (to) => {
  const msgs = await all(nc.requestMany("svc.count", JSON.stringify({ to }), untilEmpty));
  return msgs.map((m) => m.string()).filter((body) => body !== "");
};
step("three", await take(3));
step("none", await take(0));
step("thirteen", await take(13));

// Ten items of credit, ten more, and then no more.
const message = (kv) => {
  const h = headers();
  for (const [k, v] of Object.entries(kv)) h.set(k, v);
  return h;
};
const here = inbox();
const sub = nc.subscribe(here);
nc.publish("svc.endless", "{}", { reply: here, headers: message({ "Rpc-Stream": "server", "Rpc-Window": "10;65536" }) });
const items = [];
let control;
for await (const m of sub) {
  if (m.headers.has("Rpc-Open")) {
    control = m.reply;
  } else if (m.headers.has("Rpc-End")) {
    step("canceled", { items, code: m.headers.get("Rpc-Code") });
    break;
  } else if (m.headers.has("Rpc-Seq") && !m.headers.has("Rpc-Ctl")) {
    items.push(m.string());
    if (items.length === 10) nc.publish(control, "", { headers: message({ "Rpc-Ctl": "window", "Rpc-Window": "20;65536" }) });
    if (items.length === 20) nc.publish(control, "", { headers: message({ "Rpc-Ctl": "cancel" }) });
  }
}
await nc.close();
