// A one-tool server on the official TypeScript SDK, for comparison.
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import { setTimeout } from "node:timers/promises";
import { z } from "zod";

const server = new McpServer({ name: "peer", version: "1.0.0" });
server.tool("whoami", "A fixed answer.", { delay_ms: z.number().optional() }, async ({ delay_ms = 0 }) => {
  if (delay_ms) await setTimeout(delay_ms);
  return { content: [{ type: "text", text: "somebody" }] };
});
await server.connect(new StdioServerTransport());
