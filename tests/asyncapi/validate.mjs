// What the official parser says of an AsyncAPI document: reads it from standard input, and writes its diagnostics as JSON, one on
// each line, then the addresses of the channels that it has found.
//
//     MESSAGING_TEST_ASYNCAPI=<directory with node_modules/@asyncapi/parser> node tests/asyncapi/validate.mjs < document.json

import { createRequire } from "node:module";
import { join } from "node:path";
import { text } from "node:stream/consumers";

const directory = process.env.MESSAGING_TEST_ASYNCAPI;
if (!directory) throw new Error("MESSAGING_TEST_ASYNCAPI is not set: a directory in which @asyncapi/parser is installed");
const { Parser } = createRequire(join(directory, "package.json"))("@asyncapi/parser");

const { document, diagnostics } = await new Parser().parse(await text(process.stdin));
// 0 is an error, 1 a warning; 2 and 3 are advice.
const severities = ["error", "warning", "information", "hint"];
for (const { severity, code, message, path } of diagnostics) {
  console.log(JSON.stringify({ severity: severities[severity], code, message, path: path.join("/") }));
}
if (document) console.log(JSON.stringify({ channels: document.channels().all().map((channel) => channel.address()) }));
