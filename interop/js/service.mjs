// Serves until stdin ends. Usage: node service.mjs KIND URL
import { once } from "node:events";
import { open, say } from "./lib.mjs";

const { nc, services } = await open(...process.argv.slice(2));

const js = await services.add({ name: "JsSvc", version: "1.2.3", description: "in JavaScript", metadata: { lang: "js" } });
const group = js.addGroup("js");
group.addEndpoint("add", {
  metadata: {
    doc: "adds",
    // What Postbus reads of any service, see docs/protocol.md.
    "rpc.doc": "adds two numbers",
    "rpc.request": JSON.stringify({
      type: "object", properties: { a: { type: "integer" }, b: { type: "integer" } }, required: ["a", "b"],
    }),
    "rpc.response": JSON.stringify({ type: "object", properties: { sum: { type: "integer" } }, required: ["sum"] }),
  },
  handler: (_, m) => {
    const { a, b } = m.json();
    m.respond(JSON.stringify({ sum: a + b }), { headers: m.headers }); // headers come back as they went
  },
});
group.addEndpoint("fail", (_, m) => {
  const { code, text } = m.json();
  m.respondError(code, text);
});
group.addEndpoint("throw", () => {
  throw new Error("boom");
});

const mix = await services.add({ name: "mix", version: "0.0.1" });
mix.addGroup("mix").addEndpoint("who", (_, m) => m.respond(JSON.stringify({ who: "js" })));

await nc.flush();
say({ ready: true, id: js.info().id });
process.stdin.resume();
await once(process.stdin, "end");
await nc.drain();
