// AdamW (torch), group advantages and the role router against the reference fixtures.
import { readFileSync } from "node:fs";
import t from "tap";
import { AdamW, groupAdvantages, RoleRouter } from "rolegrad";
import { needsShared, shared } from "./helpers/shared.js";
import { readTensors, relativeError, tensor } from "./helpers/tensors.js";

const TOLERANCE = 1e-4;

function json<T>(file: string): T {
  return JSON.parse(readFileSync(shared(file) as string, "utf8")) as T;
}

interface AdamWCase {
  lr: number;
  betas: [number, number];
  eps: number;
  weight_decay: number;
  max_norm: number;
  steps: number;
  roles: number;
}

t.test(
  "AdamW per role, plain and clipped",
  needsShared("fixtures/adamw.json", "fixtures/adamw.safetensors"),
  async (t) => {
    const settings = json<AdamWCase>("fixtures/adamw.json");
    const want = readTensors(shared("fixtures/adamw.safetensors") as string);
    const f64 = (name: string) => tensor<Float64Array>(want, name);
    const of = (name: string, u: number) => ({ a: f64(`${name}.${u}.a`), b: f64(`${name}.${u}.b`) });
    for (const [run, maxGradNorm] of [
      ["plain", 0],
      ["clipped", settings.max_norm],
    ] as const) {
      for (let u = 0; u < settings.roles; u++) {
        const { lr: learningRate, betas, eps: epsilon, weight_decay: weightDecay } = settings;
        const optimizer = new AdamW({ learningRate, betas, epsilon, weightDecay, maxGradNorm });
        const start = of("start", u);
        const parameters = { a: Float32Array.from(start.a), b: Float32Array.from(start.b) };
        for (let i = 0; i < settings.steps; i++) {
          const { norm } = await optimizer.step(parameters, of(`grad.${i}`, u));
          const wanted = f64(`norm.${i}`)[u] as number;
          t.ok(Math.abs(norm - wanted) <= TOLERANCE * wanted, `${run}, role ${u}, step ${i}: norm`);
          const after = of(`${run}.${i}`, u);
          for (const side of ["a", "b"] as const) {
            // What the step moved, so that a step which does nothing is far off.
            const before = i === 0 ? start[side] : of(`${run}.${i - 1}`, u)[side];
            const moved = parameters[side].map((x, j) => x - (before[j] as number));
            const shouldMove = after[side].map((x, j) => x - (before[j] as number));
            t.ok(relativeError(parameters[side], after[side]) < TOLERANCE, `${run}, role ${u}, step ${i}: ${side}`);
            t.ok(relativeError(moved, shouldMove) < 1e-3, `${run}, role ${u}, step ${i}: what ${side} moved`);
          }
        }
        t.equal(optimizer.steps, settings.steps);
        if (run === "clipped") continue;
        for (const side of ["a", "b"] as const) {
          const state = optimizer.state.get(side);
          t.ok(
            relativeError(state?.expAvg ?? [], f64(`exp_avg.${u}.${side}`)) < TOLERANCE,
            `role ${u}: exp_avg ${side}`,
          );
          t.ok(relativeError(state?.expAvgSq ?? [], f64(`exp_avg_sq.${u}.${side}`)) < TOLERANCE, `exp_avg_sq ${side}`);
        }
      }
    }
  },
);

t.test("group advantages, with and without the deviation", needsShared("fixtures/advantages.json"), async (t) => {
  interface Group {
    rewards: number[];
    advantages: number[];
    advantages_no_std: number[];
  }
  for (const { rewards, advantages, advantages_no_std } of json<{ groups: Group[] }>("fixtures/advantages.json")
    .groups) {
    const worst = (got: ArrayLike<number>, want: number[]) =>
      Math.max(...want.map((x, i) => Math.abs((got[i] as number) - x)));
    t.ok(worst(groupAdvantages(rewards), advantages) < 1e-9, `[${rewards.join(", ")}]`);
    t.ok(worst(groupAdvantages(rewards, { standardize: false }), advantages_no_std) < 1e-12, "without the deviation");
  }
});

interface RouterCase {
  name: string;
  spans: { open: string; close: string; role: number }[];
  base_role: number;
  tokens_hex: string[];
  source: string;
  position_role: number[];
  target_role: number[];
  loss_mask: number[];
}

t.test("the role of every token, by the bytes of the sampled ones", needsShared("fixtures/router.json"), async (t) => {
  const { cases } = json<{ cases: RouterCase[] }>("fixtures/router.json");
  t.ok(cases.length > 0);
  for (const each of cases) {
    const count = 1 + Math.max(each.base_role, ...each.spans.map(({ role }) => role));
    const roles = Array.from({ length: count }, (_, u) => `role ${u}`);
    const name = (u: number): string => roles[u] as string;
    const spans = each.spans.map(({ open, close, role }) => ({ open, close, role: name(role) }));
    const router = new RoleRouter({ roles, base: name(each.base_role), spans });
    const bytes = each.tokens_hex.map((hex) => Uint8Array.from(Buffer.from(hex, "hex")));
    const sampled = [...each.source].map((who) => (who === "m" ? 1 : 0));
    const got = router.annotate(bytes, sampled);
    t.strictSame([...got], each.position_role, each.name);
    t.strictSame([each.base_role, ...got.slice(0, -1)], each.target_role, `${each.name}: targets`);
    t.strictSame(sampled, each.loss_mask, `${each.name}: what is trained`);
  }
});
