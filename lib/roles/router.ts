import { native, type NativeRouter } from "../binding.js";
import { checkNumbers, checkObject, checkStrings, describe } from "../arguments.js";
import { fail } from "../errors.js";

/** A span of sampled text that belongs to a role, by its tags. */
export interface RoleSpan {
  role: string;
  open: string;
  close: string;
  /** Its closing tag calls the tool. Without: the span says a role and nothing more, e.g. `<think>`. @default true */
  call?: boolean;
}

export interface RoleRouterOptions {
  /** All role names; `roles[i]` is the role i of every roles array. */
  roles: string[];
  /** The role outside every span, of prompts and of tool output. */
  base: string;
  spans: RoleSpan[];
}

/**
 * Says the role of every token by the tags in the sampled text (method.md, section 1). Matching is on bytes, so a tag spelled over several
 * tokens counts like an atomic one. Only sampled text opens or closes a span, within one unbroken run of sampled tokens; inside a span only
 * its own closing tag counts, unless the text goes on from its opening tag to a longer one that begins with it: that one's span takes over
 * (`<call>` and `<call>{"name": "sql"`). Tool output ends any open span.
 *
 * @example
 * const router = new RoleRouter({
 *   roles: ["reason", "tool"],
 *   base: "reason",
 *   spans: [{ role: "tool", open: "<search>", close: "</search>" }],
 * });
 */
export class RoleRouter {
  readonly roles: readonly string[];
  readonly base: string;
  readonly spans: readonly RoleSpan[];

  constructor({ roles, base, spans }: RoleRouterOptions) {
    const known = (role: string, where: string): void => {
      if (!roles.includes(role))
        fail("ERR_NO_ROLE", `Expected ${where} among ${roles.join(", ")} but received ${describe(role)}`);
    };
    if (!Array.isArray(roles) || roles.length === 0 || roles.length > 127 || new Set(roles).size !== roles.length) {
      fail("ERR_INVALID_ARGUMENT", `Expected 1 to 127 distinct roles but received ${describe(roles)}`);
    }
    checkStrings(roles, "roles");
    known(base, "base");
    if (!Array.isArray(spans)) fail("ERR_INVALID_ARGUMENT", `Expected a list of spans but received ${describe(spans)}`);
    spans.forEach((span, i) => {
      checkObject(span, `spans[${i}]`);
      const { role, open, close, call } = span;
      known(role, `spans[${i}].role`);
      if (typeof open !== "string" || typeof close !== "string" || open === "" || close === "") {
        fail("ERR_INVALID_ARGUMENT", `Expected spans[${i}] to have tags that are not empty`);
      }
      if (call !== undefined && typeof call !== "boolean")
        fail("ERR_INVALID_ARGUMENT", `Expected true or false for spans[${i}].call but received ${describe(call)}`);
    });
    this.roles = roles;
    this.base = base;
    this.spans = spans;
  }

  /** @internal */
  get native(): NativeRouter {
    const index = (role: string): number => this.roles.indexOf(role);
    return {
      base: index(this.base),
      spans: this.spans.map(({ role, open, close, call = true }) => ({ role: index(role), open, close, call })),
    };
  }

  /**
   * The role of each input position [T], from the bytes of each token and whether the model sampled it (1) or not (0).
   * `target_role[t]` is the entry at t - 1.
   */
  annotate(tokenBytes: readonly Uint8Array[], sampled: ArrayLike<number>): Int8Array {
    checkNumbers(sampled, "sampled");
    return native.annotateRoles(this.native, tokenBytes, Uint8Array.from(sampled));
  }
}
