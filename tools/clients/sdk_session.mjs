// Runs a session with an official TypeScript client, generation 1 or 2: makes calls and prints what it received.
//
//     node sdk_session.mjs PACKAGE DIRECTORY COMMAND... < calls.json > results.json
//
// PACKAGE is installed in DIRECTORY. Input and output have the format of tests/support/sdk_session.py.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [name, directory, command, ...args] = process.argv.slice(2);
const { resolve } = createRequire(`${directory}/package.json`);
const load = (path) => import(pathToFileURL(resolve(path)));
const GENERATIONS = {
  "@modelcontextprotocol/sdk": ["/client/index.js", "/client/stdio.js"],
  "@modelcontextprotocol/client": ["", "/stdio"],
};
const [{ Client }, { StdioClientTransport }] = await Promise.all(GENERATIONS[name].map((path) => load(name + path)));
const { version } = JSON.parse(readFileSync(`${directory}/node_modules/${name}/package.json`, "utf-8"));

const client = new Client({ name: "client-trial", version: "1" });
await client.connect(new StdioClientTransport({ command, args, env: process.env }));

const results = [];
const resolved = (value) =>
  value?.from ? value.from.slice(1).reduce((found, key) => found[key], results[value.from[0]].structuredContent) : value;
const { tools } = await client.listTools();
for (const [tool, template] of JSON.parse(readFileSync(0, "utf-8"))) {
  const entries = Object.entries(template).map(([key, value]) => [key, resolved(value)]);
  results.push(await client.callTool({ name: tool, arguments: Object.fromEntries(entries) }));
}

const offered = client.getServerCapabilities();
const output = { sdk: version, tools, results };
if (offered.resources) {
  output.resources = (await client.listResources()).resources;
  output.read = await Promise.all(output.resources.map(({ uri }) => client.readResource({ uri })));
}
if (offered.prompts) output.prompts = (await client.listPrompts()).prompts;
await client.close();
process.stdout.write(JSON.stringify(output));
