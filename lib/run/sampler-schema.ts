import { z } from "zod";

const text = z.string().min(1);
const count = z.int().min(1).max(2147483647);

/** `sampler` of a run.json: a server that writes the answers. */
export const sampler = z.strictObject({
  kind: z.enum(["vllm", "sglang"]).describe("What the server speaks."),
  url: text
    .regex(/^https?:\/\/[^/@?]+(\/[^@?]*)?$/, "an address that begins with http:// or https://, without a password")
    .describe("Address of the server, without user and password: a run directory keeps this file."),
  model: z
    .exactOptional(text)
    .describe("The model's name on the server (vLLM). Without it: the first that the server lists."),
  adapterDirectory: z
    .exactOptional(text)
    .describe("Where adapters are saved for the server, which must see it. Without it: served in the run directory."),
  serverAdapterDirectory: z
    .exactOptional(text)
    .describe(
      "The same directory as the server sees it, in its container or on its machine. Without it: the same path.",
    ),
  adapterName: z
    .exactOptional(text.regex(/^\w[\w.-]*$/, 'letters, digits, "_", "." and "-"'))
    .describe("What the adapters' names on the server begin with. Without it: rolegrad."),
  apiKeyFrom: z.exactOptional(text).describe("Environment variable that holds the server's API key."),
  timeout: count.default(600_000).describe("Milliseconds of one request, its wait in the server's queue included."),
  retries: z.int().min(0).default(5).describe("Attempts after the first, where the failure may pass."),
  seeds: z
    .boolean()
    .default(true)
    .describe("Send a seed with each request. false: chance decides, which servers do faster."),
});

/** What corrects for log-probabilities that a server recorded, where the run.json says nothing else. */
export const SERVER_IMPORTANCE = { cap: 2, mode: "truncate" } as const;
