// Calls acme.words.v1.Words over the HTTP bridge. Usage: node words.mjs URL DESCRIPTORS node|web connect|grpc|grpc-web 1.1|2 json|binary
import { readFileSync } from "node:fs";
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema, StringValueSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import * as forNode from "@connectrpc/connect-node";
import * as forWeb from "@connectrpc/connect-web";
import { say } from "./lib.mjs";

const [baseUrl, descriptors, platform, protocol, httpVersion, format] = process.argv.slice(2);

const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(descriptors)));
const make = { connect: "createConnectTransport", grpc: "createGrpcTransport", "grpc-web": "createGrpcWebTransport" }[protocol];
const transport = (more) => (platform === "web" ? forWeb : forNode)[make](
  { baseUrl, httpVersion, useBinaryFormat: format === "binary", ...more });
const client = createClient(registry.getService("acme.words.v1.Words"), transport());

// step makes one call and says what came of it: f gives its values one by one.
async function step(name, f) {
  const line = { step: name };
  const values = [];
  try {
    const opts = {
      headers: { "x-in": "hello" },
      onHeader: (h) => (line.out = h.get("x-out")),
      onTrailer: (h) => (line.end = h.get("x-end")),
    };
    for await (const v of f(opts)) values.push(v);
  } catch (e) {
    const error = ConnectError.from(e);
    line.code = Code[error.code].replace(/[A-Z]/g, (c, i) => (i ? "_" : "") + c.toLowerCase());
    line.message = error.rawMessage;
    const details = error.findDetails(StringValueSchema).map((d) => d.value);
    if (details.length) line.details = details;
  }
  say({ ...line, ...(values.length && { values }) });
}

const one = (call) => async function* (opts) { yield (await call(opts)).value; };
const many = (call) => async function* (opts) { for await (const m of call(opts)) yield typeof m.value === "bigint" ? `${m.value}` : m.value; };
async function* messages(...values) { for (const value of values) yield { value }; }

await step("unary", one((o) => client.upper({ value: "word" }, o)));
const reader = createClient(registry.getService("acme.words.v1.Words"), transport({ useHttpGet: true })); // where the protocol has it
await step("get", one((o) => reader.upper({ value: "word" }, o)));
await step("large", async function* (o) { yield (await client.upper({ value: "x".repeat(200000) }, o)).value.length; });
await step("failure", one((o) => client.upper({ value: "thirteen" }, o)));
await step("late", one((o) => client.upper({ value: "wait" }, { ...o, timeoutMs: 200 })));
await step("missing", one((o) => client.missing({ value: "x" }, o)));
await step("server stream", many((o) => client.letters({ value: "abc" }, o)));
await step("broken stream", many((o) => client.letters({ value: "ab!c" }, o)));
if (platform === "node") {
  await step("client stream", one((o) => client.join(messages("some", "words"), o)));
  if (httpVersion === "2") {
    await step("bidi stream", many((o) => client.lengths(messages("a", "bb", "ccc"), o)));
  }
}
process.exit(0); // HTTP/2 sessions would keep it
