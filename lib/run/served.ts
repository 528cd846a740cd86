import type { ChatTool } from "../prompts/calls.js";
import { onlyArgument } from "../prompts/calls.js";
import type { TagSpan } from "../prompts/tags.js";
import { usageOf } from "../environments/mcp/arguments.js";
import type { RunConfig } from "./schema.js";

type Agent = RunConfig["agent"];
type Tags = { open: string; close: string };

/**
 * The agent with what its tools say of themselves: under `chat` its tools, unless it names some; under `tags` a span kind for each, unless it has
 * spans that call, and {tools} in its prompt.
 */
export function withTools(agent: Agent, tools: readonly ChatTool[]): Agent {
  if (tools.length === 0) return agent;
  if (agent.format === "chat") return { ...agent, tools: agent.tools ?? [...tools] };
  const calls = agent.spans.some(({ call = true }) => call);
  const spans = calls ? agent.spans : [...agent.spans, ...tools.map(spanOf)];
  const lines = spans.flatMap(({ tool: name, role, open, close, content, call = true }) => {
    const tool = tools.find((each) => each.name === (name ?? role));
    const said = oneLine(tool?.description ?? "");
    return call ? [`${open} ${content ?? contentOf(tool)} ${close}${said === "" ? "" : `: ${said}`}`] : [];
  });
  return { ...agent, spans, prompt: agent.prompt.replace("{tools}", () => lines.join("\n")) };
}

function spanOf(tool: ChatTool): TagSpan {
  const { name, role = "tool" } = tool;
  return { role, open: `<${name}>`, close: `</${name}>`, tool: name, content: contentOf(tool) };
}

/** What stands between the tags of a tool. */
function contentOf(tool: ChatTool | undefined): string {
  const { parameters = {}, text = onlyArgument(parameters) } = tool ?? {};
  return tool !== undefined && text === undefined ? usageOf(parameters) : `your ${text ?? "query"}`;
}

/** A tool a line, for a reader. */
export function toolLines(tools: readonly ChatTool[]): string[] {
  return tools.map(({ name, description = "", parameters = {} }) =>
    `${name} ${usageOf(parameters)} ${oneLine(description)}`.trimEnd(),
  );
}

const oneLine = (text: string): string => text.replace(/\s+/g, " ").trim();

/** The instruction for tools that are known once their servers have told of them: {tools} is filled in then. */
export function toolsInstruction({ output, answer }: { output: Tags; answer: Tags }): string {
  return (
    "Answer the question at the end. Begin by thinking, between <think> and </think>, about what you know and what you need. If you are missing a " +
    `fact, call one of the tools below and stop: what it returns is put between ${output.open} and ${output.close}. Think again after each result, ` +
    `and call a tool again if you still lack something. Once you are sure, give the answer alone, in as few words as possible, between ${answer.open} ` +
    `and ${answer.close}, for example ${answer.open} Paris ${answer.close}.\n\nThe tools:\n{tools}\n\nQuestion: {question}\n`
  );
}
