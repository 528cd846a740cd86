import { describe } from "../arguments.js";
import { fail } from "../errors.js";
import type { ChatTool } from "../prompts/calls.js";
import { ToolError } from "./tool-error.js";
import type { Environment, ToolCall, ToolResult } from "./types.js";

/**
 * Several tools as one environment, each under a name: a call goes to the one that its name is, or that offers a tool of its name (a call by JSON, or the
 * tool that a tag span names), else to the one of its role. None of them -> ERR_TOOL_ROLE. A tool that two offer -> ERR_TOOL_OPTIONS.
 *
 * @example
 * const tools = new ToolSet({ search: new RetrieverClient({ url: "http://127.0.0.1:8000" }), sum: adder });
 */
export class ToolSet implements Environment {
  /** The names of the environments: roles, or tools. */
  readonly roles: readonly string[];
  /** What all of them offer. */
  readonly tools: readonly ChatTool[];
  /** All of them end their calls themselves. */
  readonly timesOut: boolean;
  readonly #tools: ReadonlyMap<string, Environment>;
  readonly #offered = new Map<string, Environment>();
  #closed: Promise<void> | undefined;

  constructor(tools: Record<string, Environment>) {
    const entries = Object.entries(tools ?? {});
    if (entries.length === 0) fail("ERR_TOOL_OPTIONS", "Expected an environment for each role but received none");
    for (const [role, tool] of entries) {
      if (typeof tool?.act !== "function")
        fail("ERR_TOOL_OPTIONS", `Expected an environment for role ${role} but received ${describe(tool)}`);
    }
    this.roles = entries.map(([role]) => role);
    this.#tools = new Map(entries);
    this.tools = entries.flatMap(([, tool]) => tool.tools ?? []);
    this.timesOut = entries.every(([, tool]) => tool.timesOut === true);
    for (const [own, tool] of entries) {
      for (const { name } of tool.tools ?? []) {
        const other = this.#offered.get(name) ?? this.#tools.get(name) ?? tool;
        if (other !== tool)
          fail("ERR_TOOL_OPTIONS", `Expected tools of distinct names but ${own} offers ${name}, which another has too`);
        this.#offered.set(name, tool);
      }
    }
  }

  async act(call: ToolCall, options: { signal: AbortSignal }): Promise<ToolResult> {
    const tool = this.#toolOf(call);
    if (tool === undefined) {
      const known = this.roles.join(", ");
      throw new ToolError("ERR_TOOL_ROLE", `Expected a call of ${known} but received one of ${describe(call.role)}`);
    }
    return tool.act(call, options);
  }

  check(call: ToolCall): string | undefined {
    return this.#toolOf(call)?.check?.(call);
  }

  #toolOf({ name = "", role }: ToolCall): Environment | undefined {
    return this.#tools.get(name) ?? this.#offered.get(name) ?? this.#tools.get(role);
  }

  /** Closes every tool, each once, also where one of them fails; then rejects with the first failure. */
  close(): Promise<void> {
    return (this.#closed ??= this.#closeAll());
  }

  async #closeAll(): Promise<void> {
    const closing = [...new Set(this.#tools.values())].map(async (tool) => tool.close?.());
    for (const outcome of await Promise.allSettled(closing)) {
      if (outcome.status === "rejected") throw outcome.reason;
    }
  }
}
