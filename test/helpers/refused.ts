// What a refusal must be: a RolegradError of the right code and words, after which everything works as before.
import type { Test } from "tap";
import { loadModel, RolegradError } from "rolegrad";
import type { Model } from "rolegrad";
import { bits, randomAdapters } from "./engine.js";

export type Refused = (
  t: Test,
  work: Promise<unknown> | (() => unknown),
  code: string,
  ...words: (string | RegExp)[]
) => Promise<void>;

/** A check for work that must be refused; each time a routed forward pass of the model must give the bits that it gives now. */
export async function refusals(directory: string): Promise<{ model: Model; refused: Refused }> {
  const model = await loadModel(directory);
  const adapters = randomAdapters(model, { roles: ["reason", "tool"] });
  const input = {
    inputIds: Int32Array.of(5, 60, 0, 7),
    cuSeqlens: Int32Array.of(0, 1, 4),
    roles: Int8Array.of(0, 1, -1, 0),
  };
  const forward = async () => bits((await model.forward(input, { adapters })).logprobs);
  const want = await forward();
  const refused: Refused = async (t, work, code, ...words) => {
    let error: unknown;
    try {
      await (typeof work === "function" ? work() : work);
    } catch (caught) {
      error = caught;
    }
    if (!(error instanceof RolegradError)) {
      t.fail(`expected ${code} but received ${error instanceof Error ? error.stack : "no error"}`);
      return;
    }
    t.equal(error.code, code, error.message);
    for (const word of words) t.match(error.message, word);
    t.equal(await forward(), want, "the model works as before");
  };
  return { model, refused };
}
