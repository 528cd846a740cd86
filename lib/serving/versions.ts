import { createHash, randomUUID } from "node:crypto";
import { mkdir, readFile, rename, rm } from "node:fs/promises";
import path from "node:path";
import type { Adapters } from "../adapters/adapters.js";
import type { SamplingServer } from "./types.js";

/** Where adapters are put so that a server reads them. */
export interface VersionsOptions {
  server: SamplingServer;
  /** Directory for PEFT directories, here. */
  directory: string;
  /** The same directory as the server sees it. */
  serverDirectory: string;
  /** What names begin with. */
  prefix: string;
}

/** An adapter that is loaded, for as long as it is held. */
export interface AdapterLease {
  name: string;
  /** Loads it again where the server has lost it. */
  reload: (signal: AbortSignal) => Promise<void>;
  release: () => void;
}

/** Milliseconds that unloading may take. */
const UNLOAD_TIME = 5000;

interface Version {
  name: string;
  users: number;
}

/**
 * The versions of one adapter on a server: PREFIX-v<step>-<hash of what it holds>, so that a name never means two adapters, also where another
 * run has used the server. A version that nobody holds is unloaded, and its directory removed, once there is a newer one.
 */
export class AdapterVersions {
  readonly #options: VersionsOptions;
  readonly #loaded = new Map<string, Version>();
  #newest: Version | undefined;
  /** Loading and unloading happen one after the other. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: VersionsOptions) {
    this.#options = options;
  }

  acquire(adapters: Adapters, adapter: string, step: number, signal?: AbortSignal): Promise<AdapterLease> {
    return this.#inTurn(async () => {
      const { server, directory, prefix } = this.#options;
      signal?.throwIfAborted();
      await mkdir(directory, { recursive: true });
      const fresh = path.join(directory, `.${prefix}-${randomUUID()}`);
      try {
        await adapters.save(fresh, adapter);
        const name = `${prefix}-v${step}-${await hashOf(fresh)}`;
        let version = this.#loaded.get(name);
        if (version === undefined) {
          const target = path.join(directory, name);
          await rm(target, { recursive: true, force: true });
          await rename(fresh, target);
          await server.loadAdapter(name, this.#seen(name), signal && { signal });
          version = { name, users: 0 };
          this.#loaded.set(name, version);
        }
        const older = this.#newest;
        this.#newest = version;
        if (older !== undefined) await this.#removeUnused(older);
        return this.#lease(version);
      } finally {
        await rm(fresh, { recursive: true, force: true });
      }
    });
  }

  /** Unloads the newest too. */
  async close(): Promise<void> {
    await this.#inTurn(async () => {
      const newest = this.#newest;
      this.#newest = undefined;
      if (newest !== undefined) await this.#removeUnused(newest);
    });
  }

  #lease(version: Version): AdapterLease {
    const { server } = this.#options;
    version.users++;
    let held = true;
    return {
      name: version.name,
      reload: (signal) => server.loadAdapter(version.name, this.#seen(version.name), { signal }),
      release: () => {
        if (!held) return;
        held = false;
        version.users--;
        void this.#inTurn(() => this.#removeUnused(version));
      },
    };
  }

  /** A server that cannot be reached has nothing to unload: a run does not fail for what it no longer needs. */
  async #removeUnused(version: Version): Promise<void> {
    const { name, users } = version;
    if (users > 0 || version === this.#newest) return;
    this.#loaded.delete(name);
    const signal = AbortSignal.timeout(UNLOAD_TIME);
    await this.#options.server.unloadAdapter(name, { signal }).catch(() => undefined);
    await rm(path.join(this.#options.directory, name), { recursive: true, force: true }).catch(() => undefined);
  }

  /** As the server, which may be another machine, has it. */
  #seen(name: string): string {
    return path.posix.join(this.#options.serverDirectory, name);
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => undefined);
    return turn;
  }
}

async function hashOf(directory: string): Promise<string> {
  const hash = createHash("sha256");
  for (const name of ["adapter_config.json", "adapter_model.safetensors"])
    hash.update(await readFile(path.join(directory, name)));
  return hash.digest("hex").slice(0, 12);
}
