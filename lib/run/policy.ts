import { mkdir } from "node:fs/promises";
import path from "node:path";
import { Adapters } from "../adapters/adapters.js";
import { createAdapters, type CreateAdaptersOptions } from "../adapters/create.js";
import { fail } from "../errors.js";
import type { Model } from "../model/model.js";
import { saveModel } from "../model/save.js";
import type { RoleRouter } from "../roles/router.js";
import type { RolloutOptions } from "../rollout/options.js";
import type { Trajectory } from "../rollout/trajectory.js";
import type { Writer } from "../rollout/writers.js";
import { Trainer, type StepOptions } from "../trainer/trainer.js";
import type { StepMetrics, TrainerOptions } from "../trainer/types.js";
import type { EvaluationRecord } from "./records.js";

/** What a run trains. */
export interface PolicySetup {
  model: Model;
  /** Whose roles the policy has. */
  router: RoleRouter;
  /** The adapters to make: rank, alpha, routes. Their roles are the router's, their seed is `seed`. */
  adapters: Omit<CreateAdaptersOptions, "roles" | "seed">;
  trainer: Omit<TrainerOptions, "adapters" | "full" | "roles">;
  /** Every parameter of the model is trained (loaded with dtype "float32"), and there are no adapters. @default false */
  full?: boolean;
  /**
   * Roles that an agent of their own writes (2-Agent): a model each, which is trained on that role's text alone and reads everything. All other
   * roles are those of `model`. With adapters it may be the same model, which then has adapters of its own for each agent; with `full` each
   * has weights of its own.
   */
  agents?: Record<string, Model>;
  seed: number;
}

/** A model that is trained, on the text of its roles. */
interface Agent {
  /** Its role; the first agent's is the router's base. */
  name: string;
  model: Model;
  trainer: Trainer;
}

/** How answers are sampled from a policy: options of a Rollout on its first model. */
export type PolicySampling = Pick<RolloutOptions, "adapters" | "writers">;

/** One model and its trainer, or several agents who write a text together. All take each step, or none does. */
export class Policy {
  readonly agents: readonly Agent[];
  /** Of the first agent. */
  readonly adapters: Adapters | undefined;
  readonly sampling: PolicySampling;

  private constructor(agents: readonly Agent[], writers: ReadonlyMap<string, Agent>) {
    this.agents = agents;
    this.adapters = agents[0]?.trainer.adapters;
    const writerOf = ({ model, trainer }: Agent): Writer => ({
      model,
      ...(trainer.adapters && { adapters: trainer.adapters }),
    });
    this.sampling = {
      ...(this.adapters && { adapters: this.adapters }),
      ...(writers.size > 0 && {
        writers: Object.fromEntries([...writers].map(([role, agent]) => [role, writerOf(agent)])),
      }),
    };
  }

  /** A new policy, or with a directory that {@link save} wrote the one that it holds. */
  static async create(setup: PolicySetup, checkpoint?: string): Promise<Policy> {
    const { router, model, agents = {}, trainer: options } = setup;
    const names = Object.keys(agents);
    const unknown = names.find((role) => !router.roles.includes(role));
    if (unknown !== undefined || names.includes(router.base))
      fail(
        "ERR_NO_ROLE",
        `Expected agents for roles other than ${router.base}, the model's own, among ${router.roles.join(", ")} but received ${names.join(", ")}`,
      );
    if (names.length === 0) {
      const trainer = await startTrainer(setup, { model, adapters: setup.adapters, options, folder: checkpoint });
      return new Policy([{ name: router.base, model, trainer }], new Map());
    }
    if (options.lossRoles !== undefined && options.lossRoles !== "all")
      fail("ERR_INVALID_ARGUMENT", "Expected no lossRoles with agents, each of which is trained on its own roles");
    const rest = router.roles.filter((role) => !names.includes(role));
    const parts = [
      { name: router.base, roles: rest, model },
      ...names.map((role) => ({ name: role, roles: [role], model: agents[role] as Model })),
    ];
    const list: Agent[] = [];
    for (const { name, roles, model: own } of parts) {
      const trainer = await startTrainer(setup, {
        model: own,
        // It reads all text as its own.
        adapters: { ...setup.adapters, routes: Object.fromEntries(router.roles.map((role) => [role, name])) },
        options: { ...options, lossRoles: roles },
        folder: checkpoint === undefined ? undefined : path.join(checkpoint, "agents", name),
      });
      list.push({ name, model: own, trainer });
    }
    const steps = list.map(({ trainer }) => trainer.steps);
    if (new Set(steps).size > 1)
      fail("ERR_CHECKPOINT", `Expected agents of one step in ${checkpoint} but received ${steps.join(", ")}`);
    return new Policy(list, new Map(names.map((role, i) => [role, list[i + 1] as Agent])));
  }

  /** As evaluations record it. */
  get label(): EvaluationRecord["policy"] {
    if (this.agents.length > 1) return "agents";
    return this.adapters === undefined ? "model" : "adapters";
  }

  /** Optimizer steps taken. */
  get steps(): number {
    return Math.min(...this.agents.map(({ trainer }) => trainer.steps));
  }

  /** False where a step failed after some agent had taken it: what they are now is no policy of any step. */
  get whole(): boolean {
    return this.agents.every(({ trainer }) => trainer.steps === this.steps);
  }

  /** {@link Trainer.step} of every agent. Losses are sums of theirs, as all are divided by the same N. */
  async step(trajectories: readonly Trajectory[], { signal, ...options }: StepOptions): Promise<StepMetrics> {
    const metrics: StepMetrics[] = [];
    for (const [i, { trainer, name }] of this.agents.entries()) {
      // Once the first has taken it, the step is taken whole.
      const own = await trainer.step(trajectories, { ...options, ...(i === 0 && signal && { signal }) });
      metrics.push(trainer.adapters === undefined && this.agents.length > 1 ? renamed(own, name) : own);
    }
    return metrics.reduce(together);
  }

  /** As {@link Trainer.save}; of several agents each in agents/NAME. */
  async save(directory: string): Promise<void> {
    if (this.agents.length === 1) return this.agents[0]?.trainer.save(directory);
    for (const { name, trainer } of this.agents) {
      const folder = path.join(directory, "agents", name);
      await mkdir(folder, { recursive: true });
      await trainer.save(folder);
    }
  }

  /** What was trained, for others to load: adapters by name (PEFT), or in full training the model, of several agents by name. */
  async export(directory: string): Promise<void> {
    for (const { name, trainer } of this.agents) {
      const { adapters } = trainer;
      if (adapters === undefined)
        await saveModel(trainer, this.agents.length > 1 ? path.join(directory, name) : directory);
      for (const own of adapters?.names ?? []) await adapters?.save(path.join(directory, own), own);
    }
  }

  /** Folder of {@link export} in a run directory. */
  get exportName(): "adapters" | "model" {
    return this.adapters === undefined ? "model" : "adapters";
  }
}

async function startTrainer(
  { router, full = false, seed }: PolicySetup,
  part: {
    model: Model;
    adapters: PolicySetup["adapters"];
    options: PolicySetup["trainer"];
    folder: string | undefined;
  },
): Promise<Trainer> {
  const { model, folder } = part;
  const options = { seed, ...part.options };
  const whole = { ...options, full: true as const, roles: router.roles };
  if (folder !== undefined) return Trainer.resume(folder, model, full ? whole : options);
  if (full) return new Trainer(model, whole);
  const adapters = createAdapters(model, { ...part.adapters, roles: [...router.roles], seed });
  return new Trainer(model, { ...options, adapters });
}

function renamed(metrics: StepMetrics, name: string): StepMetrics {
  return { ...metrics, gradNorms: { [name]: metrics.gradNorms["full"] ?? 0 } };
}

/** One step of two agents. Shares and sums are of the same N; what is counted of trajectories is the same in both. */
function together(a: StepMetrics, b: StepMetrics): StepMetrics {
  const sum = (name: "loss" | "kl" | "clipHigh" | "clipLow"): number => a[name] + b[name];
  const sumIf = (name: "dualClip" | "importance" | "importanceBounded"): Partial<StepMetrics> =>
    a[name] === undefined || b[name] === undefined ? {} : { [name]: a[name] + b[name] };
  const roles = Object.keys({ ...a.entropy, ...b.entropy });
  return {
    ...a,
    loss: sum("loss"),
    kl: sum("kl"),
    clipHigh: sum("clipHigh"),
    clipLow: sum("clipLow"),
    ...sumIf("dualClip"),
    ...sumIf("importance"),
    ...sumIf("importanceBounded"),
    ...(roles.length > 0 && {
      entropy: Object.fromEntries(roles.map((role) => [role, a.entropy?.[role] ?? b.entropy?.[role] ?? null])),
    }),
    maxRatioDeviation: Math.max(a.maxRatioDeviation, b.maxRatioDeviation),
    gradNorms: { ...a.gradNorms, ...b.gradNorms },
  };
}
