// A one-tool server on the official TypeScript SDK, to be measured beside ours.
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";

const server = new McpServer({ name: "peer", version: "1.0.0" });
server.tool("whoami", "Says something.", {}, async () => ({ content: [{ type: "text", text: "somebody" }] }));
await server.connect(new StdioServerTransport());
