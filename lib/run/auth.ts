import type { HttpAuth } from "../environments/http.js";
import { fail } from "../errors.js";
import type { NamedOne } from "./environments.js";

type AuthNames = NonNullable<Extract<NamedOne, { kind: "retriever" }>["auth"]>;

/** The secrets that a configuration names. */
export function readAuth({ username, passwordFrom, apiKeyFrom, bearerFrom }: AuthNames): HttpAuth {
  const given = [passwordFrom, apiKeyFrom, bearerFrom].filter((name) => name !== undefined);
  const one = given.length === 1 && (username === undefined) === (passwordFrom === undefined);
  if (!one)
    fail("ERR_CONFIG", "environment.auth: Expected either username and passwordFrom, or apiKeyFrom, or bearerFrom");
  const [variable = ""] = given;
  const secret = process.env[variable];
  if (secret === undefined || secret === "")
    fail("ERR_CONFIG", `environment.auth: Expected the environment variable ${variable} to be set but it is not`);
  if (username !== undefined) return { username, password: secret };
  return apiKeyFrom === undefined ? { bearer: secret } : { apiKey: secret };
}
