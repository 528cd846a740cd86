// A small MCP server: calculator, dictionary, and tools that misbehave when they are asked to. Over its standard streams:
//
//     node mcp-server.mjs
//
// or over streamable HTTP, on a free port of 127.0.0.1, whose address is the first line that it prints:
//
//     node mcp-server.mjs --http [--stateless] [--port 8000] [--token SECRET]
import { randomUUID } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { Server } from "@modelcontextprotocol/sdk/server/index.js";
import { CallToolRequestSchema, isInitializeRequest, ListToolsRequestSchema } from "@modelcontextprotocol/sdk/types.js";

const WORDS = { tall: "of more than average height", bank: "the land along a river" };
const PAGE = 4;

const text = (value) => ({ content: [{ type: "text", text: value }] });
const object = (properties, required = Object.keys(properties)) => ({ type: "object", properties, required });
const number = { type: "number" };
const string = { type: "string" };

/** What has happened so far, for the tool `seen`. */
const seen = { running: 0, mostRunning: 0, cancelled: 0, calls: 0 };

const tools = {
  add: {
    description: "Adds two numbers.",
    inputSchema: object({ a: number, b: { ...number, description: "the other one" } }),
    call: ({ a, b }) => text(String(a + b)),
  },
  define: {
    description: "Says what a word means.",
    inputSchema: object({ word: string, language: { enum: ["en", "de"] } }, ["word"]),
    call: ({ word }) =>
      Object.hasOwn(WORDS, word) ? text(WORDS[word]) : { isError: true, ...text(`"${word}" is not in the dictionary`) },
  },
  square: {
    description: "Squares a number.",
    inputSchema: object({ x: number }),
    call: ({ x }) => text(String(x * x)),
  },
  // Answers after some milliseconds, unless it is cancelled.
  slow: {
    description: "Waits.",
    inputSchema: object({ ms: number }),
    call: async ({ ms }, signal) => {
      seen.mostRunning = Math.max(seen.mostRunning, ++seen.running);
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, ms);
        signal.addEventListener("abort", () => {
          seen.cancelled++;
          clearTimeout(timer);
          resolve();
        });
      });
      seen.running--;
      return text(`waited ${ms} ms`);
    },
  },
  picture: {
    description: "Shows several kinds of content.",
    inputSchema: object({}),
    call: () => ({
      content: [
        { type: "text", text: "A dot:" },
        { type: "image", mimeType: "image/png", data: Buffer.alloc(10).toString("base64") },
        { type: "resource", resource: { uri: "file:///dot.txt", text: "." } },
        { type: "resource", resource: { uri: "file:///dot.bin", mimeType: "application/x-dot", blob: "AAAA" } },
        { type: "resource_link", uri: "file:///more", name: "more" },
      ],
    }),
  },
  weather: {
    description: "Has a structured result.",
    inputSchema: object({}),
    call: () => ({ content: [], structuredContent: { celsius: 21 } }),
  },
  long: {
    description: "Says a letter so many times.",
    inputSchema: object({ times: number }),
    call: ({ times }) => text("x".repeat(times)),
  },
  crash: {
    description: "Ends the server in the middle of a call.",
    inputSchema: object({}),
    call: () => {
      console.error("about to fall over");
      process.exit(3);
    },
  },
  // Texts are lines of JSON, { title, text }, in the file that TEXTS names.
  lookup: {
    description: "Finds the text that has most words of a query.",
    inputSchema: object({ query: string }),
    call: ({ query }) => {
      const words = query.toLowerCase().split(/\W+/);
      const lines = readFileSync(process.env["TEXTS"], "utf8").trim().split("\n");
      const scored = lines.map((line) => {
        const { title, text: own } = JSON.parse(line);
        const has = new Set(`${title} ${own}`.toLowerCase().split(/\W+/));
        return { score: words.filter((word) => has.has(word)).length, shown: `${title}. ${own}` };
      });
      const [best] = scored.sort((a, b) => b.score - a.score);
      return text(best.score === 0 ? "nothing found" : best.shown);
    },
  },
  seen: { description: "What has happened.", inputSchema: object({}), call: () => text(JSON.stringify(seen)) },
  pid: { description: "The server's process.", inputSchema: object({}), call: () => text(String(process.pid)) },
};

function makeServer() {
  const server = new Server({ name: "test", version: "1.0.0" }, { capabilities: { tools: { listChanged: true } } });
  server.setRequestHandler(ListToolsRequestSchema, ({ params }) => {
    const from = Number(params?.cursor ?? 0);
    const all = Object.entries(tools).map(([name, { description, inputSchema }]) => ({
      name: name === "add" ? (process.env["ADD_NAME"] ?? name) : name,
      description,
      inputSchema,
    }));
    const next = from + PAGE < all.length ? { nextCursor: String(from + PAGE) } : {};
    return { tools: all.slice(from, from + PAGE), ...next };
  });
  server.setRequestHandler(CallToolRequestSchema, async ({ params }, { signal }) => {
    seen.calls++;
    const tool = tools[params.name];
    if (tool === undefined) throw new Error(`no tool ${params.name}`);
    return tool.call(params.arguments ?? {}, signal);
  });
  return server;
}

async function body(request) {
  let all = "";
  for await (const chunk of request) all += chunk;
  return all === "" ? undefined : JSON.parse(all);
}

const option = (name) => (process.argv.includes(name) ? process.argv[process.argv.indexOf(name) + 1] : undefined);

if (process.argv.includes("--http")) {
  const { StreamableHTTPServerTransport } = await import("@modelcontextprotocol/sdk/server/streamableHttp.js");
  const stateless = process.argv.includes("--stateless");
  const token = option("--token");
  const sessions = new Map();
  const transportOf = async (request, message) => {
    const id = request.headers["mcp-session-id"];
    if (id !== undefined) return sessions.get(id);
    if (!stateless && !isInitializeRequest(message)) return undefined;
    const transport = new StreamableHTTPServerTransport({
      sessionIdGenerator: stateless ? undefined : randomUUID,
      onsessioninitialized: (own) => void sessions.set(own, transport),
      onsessionclosed: (own) => void sessions.delete(own),
    });
    await makeServer().connect(transport);
    return transport;
  };
  const http = createServer(async (request, response) => {
    if (token !== undefined && request.headers.authorization !== `Bearer ${token}`)
      return response.writeHead(401).end(`who are you, ${request.headers.authorization}?`);
    const message = request.method === "POST" ? await body(request) : undefined;
    const transport = await transportOf(request, message);
    if (transport === undefined) return response.writeHead(404).end("no such session");
    return transport.handleRequest(request, response, message);
  });
  http.listen(Number(option("--port") ?? 0), "127.0.0.1", () =>
    console.log(`http://127.0.0.1:${http.address().port}/mcp`),
  );
} else {
  if (process.env["PID_FILE"] !== undefined) writeFileSync(process.env["PID_FILE"], String(process.pid));
  // A server that heeds neither the end of its input nor SIGTERM.
  if (process.env["STUBBORN"] !== undefined) {
    process.on("SIGTERM", () => undefined);
    setInterval(() => undefined, 1000);
  }
  const { StdioServerTransport } = await import("@modelcontextprotocol/sdk/server/stdio.js");
  await makeServer().connect(new StdioServerTransport());
}
