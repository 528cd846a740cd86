/** Says whether arguments fit a tool's schema: undefined, or what is wrong with them. */
export type Check = (args: Record<string, unknown>) => string | undefined;

/** What a call's text is read by. */
export interface Signature {
  name: string;
  /** The argument that plain text is put into. */
  text: string | undefined;
  inputSchema: Record<string, unknown>;
  check: Check;
}

/** Arguments, or what is wrong with the call in words for the model. */
export type ReadArguments = { args: Record<string, unknown> } | { wrong: string };

/**
 * The arguments that a text between tags means: a JSON object of them, or where one argument is the tool's text, that one as plain text, or as a JSON
 * value where it is a number, say. Of these the first that fits the schema.
 */
export function readArguments(tool: Signature, source: string): ReadArguments {
  const text = source.trim();
  const value = parsed(text);
  const readings: Record<string, unknown>[] = [];
  if (isObject(value)) readings.push(value);
  if (tool.text !== undefined) {
    readings.push({ [tool.text]: text });
    if (value !== undefined) readings.push({ [tool.text]: value });
  } else if (text === "") readings.push({});
  const args = readings.find((each) => tool.check(each) === undefined);
  if (args !== undefined) return { args };
  const [first] = readings;
  const usage = usageOf(tool.inputSchema);
  if (first === undefined) return { wrong: `the arguments of ${tool.name} are no JSON object. Write them as ${usage}` };
  return { wrong: `the arguments of ${tool.name} are wrong: ${tool.check(first)}. Write them as ${usage}` };
}

/** {@link readArguments} of a call whose arguments are there already. */
export function checkArguments(tool: Signature, args: Record<string, unknown>): ReadArguments {
  const wrong = tool.check(args);
  if (wrong === undefined) return { args };
  const usage = usageOf(tool.inputSchema);
  return { wrong: `the arguments of ${tool.name} are wrong: ${wrong}. Write them as ${usage}` };
}

/**
 * A schema of arguments as a model may read it: names and types, a question mark behind what may be absent.
 *
 * @example
 * usageOf({ properties: { a: { type: "number" }, unit: { enum: ["m", "km"] } }, required: ["a"] }); // {"a": number, "unit"?: "m" | "km"}
 */
export function usageOf(schema: Record<string, unknown>): string {
  return fieldsOf(schema, schema, 0);
}

/** Deeper than this a schema is told by the name of its type: it may hold itself. */
const DEPTH = 3;

function fieldsOf(schema: Record<string, unknown>, root: Record<string, unknown>, depth: number): string {
  const { properties, required } = schema;
  const needed = Array.isArray(required) ? (required as unknown[]) : [];
  const fields = Object.entries(isObject(properties) ? properties : {}).map(
    ([name, own]) => `${JSON.stringify(name)}${needed.includes(name) ? "" : "?"}: ${typeOf(own, root, depth + 1)}`,
  );
  return `{${fields.join(", ")}}`;
}

function typeOf(schema: unknown, root: Record<string, unknown>, depth: number): string {
  if (!isObject(schema)) return "any";
  const { type, enum: values, anyOf, $ref, properties, items } = schema;
  if (typeof $ref === "string") {
    const [, group = "", name = ""] = /^#\/(\$defs|definitions)\/(.+)$/.exec($ref) ?? [];
    const found = (root[group] as Record<string, unknown> | undefined)?.[name];
    return depth < DEPTH ? typeOf(found, root, depth + 1) : "any";
  }
  if (Array.isArray(values)) return values.map((value) => JSON.stringify(value)).join(" | ");
  if (Array.isArray(anyOf)) return [...new Set(anyOf.map((each) => typeOf(each, root, depth)))].join(" | ");
  if (type === "array") return `[${typeOf(items, root, depth)}, ...]`;
  if (Array.isArray(type)) return type.join(" | ");
  if (isObject(properties) && depth < DEPTH) return fieldsOf(schema, root, depth);
  return typeof type === "string" ? type : "any";
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
