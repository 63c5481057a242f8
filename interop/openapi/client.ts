// A client whose types openapi-typescript made of the document: what compiles here, the document says.
import createClient from "openapi-fetch";
import type { paths } from "./schema.js";

declare const process: { argv: string[] };

const client = createClient<paths>({ baseUrl: process.argv[2] });

const sum = await client.POST("/addsvc/sum", { body: { a: 1, b: 2 } });
const routed = await client.GET("/v1/sums/{a}", { params: { path: { a: 20 }, query: { b: 22 } } });
const put = await client.PUT("/v1/sums/{a}", { params: { path: { a: 4 } }, body: { a: 3 } });
const zero = await client.POST("/addsvc/sum", { body: { a: 0, b: 0 } });
const bad = await client.GET("/v1/sums/{a}", { params: { path: { a: "x" as unknown as number }, query: { b: 1 } } });

const results: number[] = [sum.data!.v, routed.data!.v, put.data!.v];
const codes: string[] = [zero.error!.code, bad.error!.code];
console.log(JSON.stringify({ results, codes, message: zero.error!.message }));
