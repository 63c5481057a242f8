// The two generations of the JavaScript client, evened out where they differ.

export async function open(kind, servers) {
  if (kind === "nats") {
    const { connect, createInbox, headers } = await import("nats");
    const nc = await connect({ servers });
    return {
      nc, headers, inbox: createInbox,
      services: nc.services,
      noResponders: (e) => e.code === "503",
      stall: { strategy: "jitterTimer", jitter: 500, maxWait: 5000 },
      untilEmpty: { strategy: "sentinelMsg", maxWait: 60000 },
    };
  }
  const { connect, createInbox, headers } = await import("@nats-io/transport-node");
  const { Svcm } = await import("@nats-io/services");
  const nc = await connect({ servers });
  return {
    nc, headers, inbox: createInbox,
    services: new Svcm(nc),
    noResponders: (e) => e.isNoResponders?.() === true || e.cause?.isNoResponders?.() === true,
    stall: { strategy: "stall", stall: 500, maxWait: 5000 },
    untilEmpty: { strategy: "sentinel", maxWait: 60000 },
  };
}

// say prints one line of JSON for the Go test that started this script.
export const say = (value) => console.log(JSON.stringify(value));

export async function all(iterator) {
  const out = [];
  for await (const x of await iterator) out.push(x);
  return out;
}
