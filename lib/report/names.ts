import type { RunFiles } from "./run.js";

/** Colours of roles and adapters: "0" to "5" of the page's. */
export interface NameColors {
  /** Names of the roles, in the order of their indices. */
  roles: string[];
  of(name: string): string;
}

/** How many colours names have; beyond, they repeat. */
export const COLORS = 6;

/**
 * One colour for each role, the same in every chart and text: by its place in the agent's roles. An adapter has the colour of the role of its name;
 * other names come after the roles, as they are met.
 */
export function nameColors({
  config,
  metrics,
  examples,
}: Pick<RunFiles, "config" | "metrics" | "examples">): NameColors {
  const agent = config["agent"] as { roles?: unknown } | undefined;
  const configured = Array.isArray(agent?.roles) ? agent.roles.filter((role) => typeof role === "string") : [];
  const known = new Set<string>([
    ...configured,
    ...Object.keys(metrics[0]?.sampledTokens ?? {}),
    ...examples.flatMap(({ roles }) => roles ?? []),
  ]);
  const roles = [...known];
  const places = new Map(roles.map((name, i) => [name, i]));
  const of = (name: string): string => {
    if (!places.has(name)) places.set(name, places.size);
    return String((places.get(name) as number) % COLORS);
  };
  return { roles, of };
}
