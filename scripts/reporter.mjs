// The reporter of `npm test`: one line a test file, failures and skips in full, and last "N passed, N failed" (in the file that ROLEGRAD_TALLY names,
// where it does, as JSON).
import { writeFileSync } from "node:fs";
import { Transform } from "node:stream";

const point = /^(not )?ok\b(?: \d+)?(?: - (.*?))?(?: # (time=\S+|skip\b.*|todo\b.*))?( \{)?$/i;
const noise = /^(TAP version \d+|\d+\.\.\d+( #.*)?|\}|# (time=.*|\{ total: .*|No coverage generated.*))?$/;

export default class Reporter extends Transform {
  #rest = "";
  /** The open subtests, outermost first. `points` counts the test points inside, at any depth. */
  #open = [];
  /** The test point whose diagnosis (a YAML block) may follow. */
  #last;
  #inDiagnosis = false;
  #skipped = [];
  #passed = 0;
  #failed = 0;

  _transform(chunk, _encoding, done) {
    const lines = (this.#rest + chunk).split("\n");
    this.#rest = lines.pop();
    for (const line of lines) this.#line(line);
    done();
  }

  _flush(done) {
    if (this.#rest !== "") this.#line(this.#rest);
    this.#report();
    for (const skip of this.#skipped) this.push(`skipped: ${skip}\n`);
    const counts = { passed: this.#passed, failed: this.#failed };
    const { ROLEGRAD_TALLY: tally } = process.env;
    if (tally === undefined) this.push(`${counts.passed} passed, ${counts.failed} failed\n`);
    else writeFileSync(tally, JSON.stringify(counts));
    done();
  }

  #line(line) {
    const indent = line.length - line.trimStart().length;
    const text = line.slice(indent);
    if (this.#inDiagnosis) {
      if (text === "..." && indent === this.#last.indent + 2) this.#inDiagnosis = false;
      else this.#last.diagnosis.push(line.slice(this.#last.indent + 2));
      return;
    }
    if (text === "---" && this.#last !== undefined && indent === this.#last.indent + 2) {
      this.#inDiagnosis = true;
      return;
    }
    this.#report();
    const depth = indent / 4;
    if (text === "}") return this.#close(depth);
    const subtest = /^# Subtest: (.*)$/.exec(text);
    if (subtest !== null) return this.#subtest(depth, subtest[1]);
    const match = point.exec(text);
    if (match !== null) return this.#point(depth, indent, match);
    if (!noise.test(text)) this.push(`${text}\n`);
  }

  #subtest(depth, name) {
    this.#open.length = depth;
    this.#open.push({ name, passed: 0, failed: 0, skipped: 0 });
  }

  #point(depth, indent, [, not, name = "", directive = "", brace]) {
    const failed = not !== undefined && !/^todo/i.test(directive);
    if (brace !== undefined) {
      // A buffered subtest: its result comes first, its points follow until the closing brace.
      this.#subtest(depth, name);
      this.#open[depth].result = { indent, failed, directive, diagnosis: this.#last?.diagnosis ?? [] };
      return;
    }
    const inside = this.#open[depth];
    this.#last = { indent, name, failed, directive, diagnosis: [] };
    if (inside !== undefined && inside.name === name) this.#last.inside = inside;
    this.#last.path = [...this.#open.slice(0, depth).map((test) => test.name), name];
    this.#last.parents = this.#open.slice(0, depth);
    this.#open.length = Math.min(this.#open.length, depth);
  }

  #close(depth) {
    const inside = this.#open[depth];
    if (inside?.result === undefined) return;
    const path = [...this.#open.slice(0, depth).map((test) => test.name), inside.name];
    this.#last = { ...inside.result, name: inside.name, inside, path, parents: this.#open.slice(0, depth) };
    this.#open.length = depth;
  }

  /** Counts and prints the last test point; called when its diagnosis is complete. */
  #report() {
    const last = this.#last;
    if (last === undefined) return;
    this.#last = undefined;
    const path = last.path.join(" > ");
    const { inside } = last;
    const points = inside === undefined ? 0 : inside.passed + inside.failed + inside.skipped;
    // A subtest counts by its points; by itself only when it has none, or fails though they passed (a crash, a plan).
    if (points === 0 || (last.failed && inside.failed === 0)) {
      const skip = /^skip ?(.*)/i.exec(last.directive);
      if (last.failed) this.#count(last.parents.concat(inside ?? []), "failed");
      else if (skip !== null) this.#count(last.parents.concat(inside ?? []), "skipped");
      else this.#count(last.parents.concat(inside ?? []), "passed");
      if (skip !== null) this.#skipped.push(skip[1] === "" ? path : `${path}: ${skip[1]}`);
      if (last.failed) this.push(`\nFAILED ${path}\n${last.diagnosis.map((line) => `  ${line}\n`).join("")}\n`);
    }
    if (last.indent === 0 && inside !== undefined) {
      const { passed, failed, skipped } = inside;
      const time = /time=([\d.]+)ms/.exec(last.directive);
      const seconds = time === null ? "" : ` (${(Number(time[1]) / 1000).toFixed(1)} s)`;
      const counts = `${passed} passed${failed > 0 ? `, ${failed} failed` : ""}${skipped > 0 ? `, ${skipped} skipped` : ""}`;
      this.push(`${last.failed ? "not ok" : "ok"} ${last.name}: ${counts}${seconds}\n`);
    }
  }

  #count(tests, kind) {
    for (const test of tests) test[kind]++;
    if (kind === "passed") this.#passed++;
    if (kind === "failed") this.#failed++;
  }
}
