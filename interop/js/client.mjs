// Finds, inspects and calls the calculator that two instances serve. Usage: node client.mjs KIND URL
import { all, open, say } from "./lib.mjs";

const { nc, headers, services, noResponders, stall } = await open(...process.argv.slice(2));

const reply = (m) => ({
  body: m.string(),
  headers: m.headers ? Object.fromEntries([...m.headers].map(([k, v]) => [k, v.join(", ")])) : {},
});
const request = async (subject, body, opts = {}) => reply(await nc.request(subject, body, { timeout: 5000, ...opts }));
const step = (name, value) => say({ step: name, value });

// Discovery: everybody, one service by silence and by count, one instance.
const two = services.client({ strategy: "count", maxMessages: 2, maxWait: 5000 });
const one = services.client({ strategy: "count", maxMessages: 1, maxWait: 5000 });
const pings = await all(two.ping());
step("ping", pings);
step("ping name", await all(services.client(stall).ping("svc")));
step("ping id", await all(one.ping("svc", pings[0].id)));
step("info", await all(two.info("svc")));
step("info id", await all(one.info("svc", pings[1].id)));

// Calls.
step("add", await request("svc.add", `{"a":1,"b":2}`));
step("many at once", await Promise.all(Array.from({ length: 50 }, (_, i) => request("svc.add", JSON.stringify({ a: i, b: 1 })))));
const h = headers();
h.set("X-Tenant", "acme");
h.set("Content-Type", "application/json");
step("headers", await request("svc.add", `{"a":1,"b":2}`, { headers: h }));

// Failures: the handler's, the request's, the deadline's, and nobody there.
step("not found", await request("svc.add", `{"a":1,"b":13}`));
step("malformed", await request("svc.add", `{"a":"one"}`));
const soon = headers();
soon.set("Rpc-Timeout", "50m");
step("late", await request("svc.slow", `{}`, { headers: soon }));
try {
  step("nobody", await request("svc.nobody", `{}`));
} catch (e) {
  step("nobody", { noResponders: noResponders(e) });
}

// Many replies to one request: an endpoint without a queue group.
const many = async (opts) => (await all(nc.requestMany("svc.all", `{"a":2,"b":2}`, opts))).map((m) => m.string());
step("many count", await many({ strategy: "count", maxMessages: 2, maxWait: 5000 }));
step("many stall", await many(stall));
step("many timer", await many({ strategy: "timer", maxWait: 1000 }));

// Counters are up to date a moment after the reply.
for (;;) {
  const stats = await all(two.stats("svc"));
  const add = stats.flatMap((s) => s.endpoints).filter((e) => e.name === "add");
  if (add.reduce((n, e) => n + e.num_requests, 0) >= 54) {
    step("stats", stats);
    break;
  }
}
await nc.close();
