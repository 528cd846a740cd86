// A unit converter as a server of the Model Context Protocol, over its standard streams: node server.mjs
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import { z } from "zod";

/** In metres, grams and seconds: units of one row can be converted. */
const units = [
  { mm: 0.001, cm: 0.01, m: 1, km: 1000, inch: 0.0254, foot: 0.3048, mile: 1609.344 },
  { g: 1, kg: 1000, ounce: 28.349523125, pound: 453.59237 },
  { s: 1, min: 60, h: 3600, day: 86_400 },
];

const server = new McpServer({ name: "units", version: "1.0.0" });
server.registerTool(
  "convert",
  {
    description: "Converts a quantity to another unit.",
    inputSchema: { conversion: z.string().describe('Such as "3 km in m".') },
  },
  ({ conversion }) => {
    const [, value, from, to] = /^\s*(-?[\d.]+)\s*(\w+)\s+in\s+(\w+)\s*$/.exec(conversion) ?? [];
    const row = units.find((known) => from in known && to in known);
    const known = units.map((list) => Object.keys(list).join(", ")).join("; ");
    const text = row
      ? `${Number(((value * row[from]) / row[to]).toPrecision(10))} ${to}`
      : `Expected "NUMBER UNIT in UNIT" with units of one kind: ${known}.`;
    return { content: [{ type: "text", text }], isError: row === undefined };
  },
);
await server.connect(new StdioServerTransport());
