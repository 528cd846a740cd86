import { z } from "zod";
import { checkObject, describe } from "../arguments.js";
import { fail } from "../errors.js";
import type { ParsedCall } from "./renderer.js";

/** A tool that the model may call by a JSON object. */
export interface ChatTool {
  name: string;
  /** What it does, for the model. */
  description?: string;
  /** JSON schema of its arguments, an object's. @default no arguments */
  parameters?: Record<string, unknown>;
  /** The role of its calls. @default "tool" */
  role?: string;
  /**
   * The argument that the environment gets as the call's text. Default: the only one that is required, or the only one; with neither, the
   * text is the JSON of all arguments.
   */
  text?: string;
  /** What is wrong with arguments, in words for the model, in place of what `parameters` says of them. */
  validate?: (args: Record<string, unknown>) => string | undefined;
}

/** Reads calls of the form `{"name": ..., "arguments": {...}}`. */
export class CallParser {
  readonly #tools = new Map<string, { check: Check; text: string | undefined }>();
  readonly #key: string;

  /** `key` is how the template calls the arguments, for what the model is told; "arguments" and "parameters" are both read. */
  constructor(tools: readonly ChatTool[], key: string) {
    this.#key = key;
    tools.forEach((tool, i) => {
      checkObject(tool, `tools[${i}]`);
      if (typeof tool.name !== "string" || tool.name === "")
        fail("ERR_INVALID_ARGUMENT", `Expected a name for tools[${i}] but received ${describe(tool.name)}`);
      if (this.#tools.has(tool.name))
        fail("ERR_INVALID_ARGUMENT", `Expected distinct tools but received ${describe(tool.name)} twice`);
      const { parameters = { type: "object", properties: {} } } = tool;
      const check = tool.validate ?? checkBySchema(tool.name, parameters);
      this.#tools.set(tool.name, { check, text: tool.text ?? onlyArgument(parameters) });
    });
  }

  parse(json: string): ParsedCall {
    const form = `{"name": "${[...this.#tools.keys()][0] ?? "..."}", "${this.#key}": {...}}`;
    const error = (what: string): ParsedCall => ({ error: `Error: ${what}` });
    let call: unknown;
    try {
      call = JSON.parse(json);
    } catch (cause) {
      return error(`the call is not valid JSON (${(cause as Error).message}). Write it as ${form}`);
    }
    if (!isObject(call)) return error(`the call is not a JSON object. Write it as ${form}`);
    const { name } = call;
    if (typeof name !== "string") return error(`the call has no "name". Write it as ${form}`);
    const found = this.#tools.get(name);
    const names = [...this.#tools.keys()].join(", ");
    if (found === undefined) return error(`there is no tool ${describe(name)}. The tools are: ${names}`);
    let args: unknown = call["arguments"] ?? call["parameters"] ?? {};
    // Some models write the arguments as a text that is JSON.
    if (typeof args === "string") {
      try {
        args = JSON.parse(args) as unknown;
      } catch {
        return error(`the "${this.#key}" of ${name} are not a JSON object. Write them as ${form}`);
      }
    }
    if (!isObject(args)) return error(`the "${this.#key}" of ${name} are not a JSON object. Write them as ${form}`);
    const wrong = found.check(args);
    if (wrong !== undefined) return error(wrong);
    const value = found.text === undefined ? undefined : args[found.text];
    const text = typeof value === "string" ? value : JSON.stringify(value ?? args);
    return { name, arguments: args, text };
  }
}

type Check = NonNullable<ChatTool["validate"]>;

function checkBySchema(name: string, parameters: Record<string, unknown>): Check {
  let schema: z.ZodType;
  try {
    schema = z.fromJSONSchema({ type: "object", ...parameters });
  } catch (cause) {
    const what = `Expected a JSON schema for the parameters of tool ${name}`;
    return fail("ERR_INVALID_ARGUMENT", `${what}: ${(cause as Error).message}`, cause);
  }
  return (args) => {
    const checked = schema.safeParse(args, { reportInput: true });
    return checked.success ? undefined : checked.error.issues.map((issue) => explain(issue, name)).join("; ");
  };
}

function explain(issue: z.core.$ZodIssue, name: string): string {
  const field = issue.path.map(String).join(".");
  if (issue.code === "unrecognized_keys") return `${name} has no argument ${issue.keys.map(describe).join(", ")}`;
  if (issue.input === undefined) return `${name} needs the argument "${field}", which is missing`;
  return `the argument "${field}" of ${name} is wrong: ${issue.message}`;
}

/** The argument that a text alone means: the only one that is required, or the only one. */
export function onlyArgument(parameters: Record<string, unknown>): string | undefined {
  const { required, properties } = parameters;
  const names = isObject(properties) ? Object.keys(properties) : [];
  const needed = Array.isArray(required) ? (required as string[]) : [];
  if (needed.length === 1) return needed[0];
  return names.length === 1 ? names[0] : undefined;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
