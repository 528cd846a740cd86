import { RolegradError } from "../errors.js";
import type { CallRecord, Environment, ToolCall } from "../environments/types.js";

export type ToolErrorPolicy = "observe" | "finish" | "throw";

/** Calls a tool and records what came of it. A rejection, a time-out or a misshapen answer is a record with an error; an abort rejects. */
export async function callTool(
  environment: Environment,
  call: ToolCall,
  { signal, timeout }: { signal: AbortSignal; timeout: number },
): Promise<CallRecord> {
  const begin = performance.now();
  const own = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  let onAbort: () => void = () => undefined;
  const where = `The tool of role ${call.role} for question ${call.question.id}`;
  const done = (rest: Pick<CallRecord, "result"> & Partial<CallRecord>): CallRecord => ({
    role: call.role,
    query: call.text,
    ...rest,
    latencyMs: performance.now() - begin,
  });
  const failed = (code: string, message: string): CallRecord =>
    done({ result: `Error: ${message}`, error: { code, message } });
  try {
    signal.throwIfAborted();
    const ended = new Promise<never>((_, reject) => {
      onAbort = () => reject(signal.reason as Error);
      signal.addEventListener("abort", onAbort, { once: true });
      timer = setTimeout(() => reject(TIMED_OUT), timeout);
    });
    const result = await Promise.race([environment.act(call, { signal: own.signal }), ended]);
    if (typeof (result as { text?: unknown } | undefined)?.text !== "string") {
      return failed("ERR_TOOL_FAILED", `${where} answered without a text`);
    }
    return done({ result: result.text, ...(result.passages === undefined ? {} : { passages: result.passages }) });
  } catch (error) {
    if (error === TIMED_OUT) return failed("ERR_TOOL_TIMEOUT", `${where} did not answer within ${timeout} ms`);
    if (signal.aborted) throw signal.reason;
    // The tools that come with the engine say what was wrong by a code of their own.
    const code = error instanceof RolegradError ? error.code : "ERR_TOOL_FAILED";
    return failed(code, `${where} failed: ${error instanceof Error ? error.message : String(error)}`);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", onAbort);
    own.abort();
  }
}

/** The record of a call that did not reach its tool. */
export function refusedCall({ role, text }: ToolCall, correction: string, code: string): CallRecord {
  const error = { code, message: correction };
  return { role, query: text, result: correction, latencyMs: 0, error };
}

const TIMED_OUT = Symbol("timed out");
