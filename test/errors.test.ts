import t from "tap";
import { RolegradError } from "rolegrad";

t.test("an error carries its code, message and cause", async (t) => {
  const error = new RolegradError("ERR_X", "what happened", { cause: 1 });
  t.ok(error instanceof Error);
  t.equal(error.name, "RolegradError");
  t.equal(error.code, "ERR_X");
  t.equal(error.message, "what happened");
  t.equal(error.cause, 1);
});

t.test("an error without a cause has none", async (t) => {
  t.notOk("cause" in new RolegradError("ERR_X", "what happened"));
});
