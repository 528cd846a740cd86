import { describe } from "../arguments.js";
import { fail } from "../errors.js";
import { ToolError } from "./tool-error.js";
import type { Environment, ToolCall, ToolResult } from "./types.js";

/**
 * Several tools as one environment: a call goes to the one of its role. A role without a tool -> ERR_TOOL_ROLE.
 *
 * @example
 * const tools = new ToolSet({ search: new RetrieverClient({ url: "http://127.0.0.1:8000" }), sum: adder });
 */
export class ToolSet implements Environment {
  /** The roles that have a tool. */
  readonly roles: readonly string[];
  readonly #tools: ReadonlyMap<string, Environment>;
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
  }

  async act(call: ToolCall, options: { signal: AbortSignal }): Promise<ToolResult> {
    const tool = this.#tools.get(call.role);
    if (tool === undefined) {
      const known = this.roles.join(", ");
      throw new ToolError("ERR_TOOL_ROLE", `Expected a call of ${known} but received one of ${describe(call.role)}`);
    }
    return tool.act(call, options);
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
