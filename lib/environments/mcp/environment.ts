import { checkInteger, describe } from "../../arguments.js";
import { fail } from "../../errors.js";
import { importOptional } from "../../optional.js";
import { onlyArgument, type ChatTool } from "../../prompts/calls.js";
import { ToolError } from "../tool-error.js";
import type { Environment, ToolCall, ToolResult } from "../types.js";
import { checkArguments, readArguments, type Check, type ReadArguments, type Signature } from "./arguments.js";
import { McpClient, type McpClientOptions, type McpTool } from "./client.js";
import { resultText } from "./result.js";
import type { McpServer } from "./server.js";

/** How one tool of a server is called. */
export interface McpToolOptions {
  /** The role of its calls. Default: {@link McpOptions.role}. */
  role?: string;
  /** The argument that plain text between tags is put into. Default: the only one that is required, or the only one. */
  text?: string;
}

/** Options of {@link McpEnvironment}. */
export interface McpOptions extends McpClientOptions {
  /** Which tools may be called: their names, or settings by name. Default: all. */
  tools?: readonly string[] | Record<string, McpToolOptions>;
  /** The role of calls. @default "tool" */
  role?: string;
  /** Characters of one result that the model reads. @default 20,000 */
  maxCharacters?: number;
}

type Served = Signature & { role: string; offer: ChatTool };

/**
 * The tools of an MCP server behind the spans of roles. A call goes to the tool of its name (a call by JSON, or the tool that a tag span names), else to the
 * only tool of its role. Its arguments are those of the JSON call, or a JSON object between tags, or plain text for the tool's one argument, and must fit
 * the tool's schema (else ERR_TOOL_ARGUMENTS, or what {@link check} says of it). The result is the text of the answer, see docs/tools.md; an error
 * that the tool reports -> ERR_TOOL_REPORTED. Limits are `managedTool`'s.
 *
 * @example
 * const calc = await McpEnvironment.connect({ command: "node", args: ["server.mjs"] }, { tools: ["add"] });
 * await calc.act({ role: "tool", text: '{"a": 1, "b": 2}', … }, { signal }); // { text: "3" }
 * await calc.close();
 */
export class McpEnvironment implements Environment {
  readonly client: McpClient;
  /** What it offers, with names, descriptions and schemas: the `tools` of a chatRenderer. */
  readonly tools: readonly ChatTool[];
  readonly #served: ReadonlyMap<string, Served>;
  readonly #maxCharacters: number;

  private constructor(client: McpClient, served: readonly Served[], maxCharacters: number) {
    this.client = client;
    this.#served = new Map(served.map((tool) => [tool.name, tool]));
    this.tools = served.map(({ offer }) => offer);
    this.#maxCharacters = maxCharacters;
  }

  /** Connects ({@link McpClient.connect}). A tool that the server does not have, or one of a schema that makes no sense -> ERR_TOOL_OPTIONS, naming it. */
  static async connect(server: McpServer, options: McpOptions = {}): Promise<McpEnvironment> {
    const { tools, role = "tool", maxCharacters = 20_000, ...rest } = options;
    try {
      checkInteger(maxCharacters, "maxCharacters", 1);
    } catch (cause) {
      fail("ERR_TOOL_OPTIONS", (cause as Error).message, cause);
    }
    if (typeof role !== "string") fail("ERR_TOOL_OPTIONS", `Expected a text for role but received ${describe(role)}`);
    if (tools !== undefined && (typeof tools !== "object" || tools === null))
      fail("ERR_TOOL_OPTIONS", `Expected the names of tools for tools but received ${describe(tools)}`);
    const client = await McpClient.connect(server, rest);
    try {
      const checks = await checker(client.label);
      const served = chosen(client, tools).map(([tool, own]) => serve(tool, { role, ...own }, checks));
      return new McpEnvironment(client, served, maxCharacters);
    } catch (error) {
      await client.close();
      throw error;
    }
  }

  /** What is wrong with a call, in words for the model; undefined where it can be made. */
  check(call: ToolCall): string | undefined {
    const read = this.#read(call);
    return "wrong" in read ? `Error: ${read.wrong}` : undefined;
  }

  async act(call: ToolCall, options: { signal?: AbortSignal } = {}): Promise<ToolResult> {
    const read = this.#read(call);
    if ("wrong" in read) throw new ToolError("ERR_TOOL_ARGUMENTS", read.wrong);
    const result = await this.client.call(read.name, read.args, options);
    const text = resultText(result, this.#maxCharacters);
    if (result.isError === true) throw new ToolError("ERR_TOOL_REPORTED", text);
    return { text };
  }

  /** Ends the connection, and with it a program. */
  close(): Promise<void> {
    return this.client.close();
  }

  #read(call: ToolCall): { name: string; args: Record<string, unknown> } | { wrong: string } {
    const tool = this.#toolOf(call);
    if (tool === undefined) {
      const names = [...this.#served.keys()].join(", ");
      return { wrong: `there is no tool ${describe(call.name ?? call.role)}. The tools are: ${names}` };
    }
    const given = call.arguments ?? {};
    const read: ReadArguments =
      Object.keys(given).length > 0 ? checkArguments(tool, given) : readArguments(tool, call.text);
    return "wrong" in read ? read : { name: tool.name, args: read.args };
  }

  #toolOf({ name, role }: ToolCall): Served | undefined {
    const named = name === undefined ? undefined : this.#served.get(name);
    const own = [...this.#served.values()].filter((tool) => tool.role === role);
    // Of a span without a tool the name is its role's, which may be another tool's name.
    if (named !== undefined && (named.role === role || name !== role)) return named;
    return own.length === 1 ? own[0] : named;
  }
}

function chosen(
  { tools, label }: McpClient,
  wanted: McpOptions["tools"] = tools.map(({ name }) => name),
): [McpTool, McpToolOptions][] {
  const list: [string, McpToolOptions][] = Array.isArray(wanted)
    ? (wanted as string[]).map((name) => [name, {}])
    : Object.entries(wanted as Record<string, McpToolOptions>);
  if (list.length === 0) fail("ERR_TOOL_OPTIONS", `Expected at least one tool of the MCP server ${label}`);
  return list.map(([name, own]) => {
    const tool = tools.find((each) => each.name === name);
    if (tool === undefined) {
      const known = tools.map((each) => each.name).join(", ") || "none";
      return fail(
        "ERR_TOOL_OPTIONS",
        `Expected a tool of the MCP server ${label} (${known}) but received ${describe(name)}`,
      );
    }
    return [tool, own];
  });
}

type Checker = (tool: McpTool) => Check;

/** Checks by the SDK's own validator. */
async function checker(label: string): Promise<Checker> {
  const { AjvJsonSchemaValidator } = await importOptional<
    typeof import("@modelcontextprotocol/sdk/validation/ajv-provider.js")
  >("@modelcontextprotocol/sdk/validation/ajv-provider.js", "MCP servers");
  return ({ name, inputSchema }) => {
    // One for each tool: schemas of several may have one $id.
    const validator = new AjvJsonSchemaValidator();
    try {
      const validate = validator.getValidator<Record<string, unknown>>(inputSchema);
      return (args) => {
        const { errorMessage } = validate(args);
        return errorMessage?.replace(/\bdata\/(\S+)/g, '"$1"').replace(/\bdata (?=must)/g, "they ");
      };
    } catch (cause) {
      const what = `Expected a JSON schema for the arguments of tool ${name} of the MCP server ${label}`;
      return fail("ERR_TOOL_OPTIONS", `${what}: ${(cause as Error).message}; leave it out of tools`, cause);
    }
  };
}

function serve(tool: McpTool, { role, text }: McpToolOptions & { role: string }, checks: Checker): Served {
  const { name, description, inputSchema } = tool;
  const { properties } = inputSchema;
  if (text !== undefined && !Object.hasOwn(properties ?? {}, text))
    fail("ERR_TOOL_OPTIONS", `Expected an argument of tool ${name} for text but received ${describe(text)}`);
  const argument = text ?? onlyArgument(inputSchema);
  const check = checks(tool);
  const validate = (args: Record<string, unknown>): string | undefined => {
    const read = checkArguments(served, args);
    return "wrong" in read ? read.wrong : undefined;
  };
  const parameters = inputSchema;
  const offer = { name, description, parameters, role, ...(argument !== undefined && { text: argument }), validate };
  const served: Served = { name, inputSchema, text: argument, check, role, offer };
  return served;
}
