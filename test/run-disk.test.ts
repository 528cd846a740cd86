// Disks that are full, limits of file sizes, folders that cannot be written: what is said, that nothing is half-written, that the same command goes on.
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import { makeFolder, writeDurable } from "../lib/durable.js";
import { rolegrad, runProgram } from "./helpers/command.js";
import { contents, sameFiles } from "./helpers/run-files.js";
import { root } from "./helpers/shared.js";
import { temporary, worldRunFile } from "./helpers/world.js";

const onLinux = process.platform === "linux" ? {} : { skip: "needs Linux" };

/** A disk of its own, of so many bytes; undefined where this process may not have one. */
function mountDisk(bytes: number): string | undefined {
  const folder = temporary();
  if (spawnSync("mount", ["-t", "tmpfs", "-o", `size=${bytes}`, "tmpfs", folder]).status !== 0) return undefined;
  t.teardown(() => spawnSync("umount", [folder]));
  return folder;
}

const trained = (directory: string): Map<string, string> =>
  new Map([...contents(directory)].filter(([name]) => !/^(config\.json|report\.html|examples\.jsonl)$/.test(name)));

const partials = (folder: string): string[] =>
  readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) => /\.partial|run\.lock/.test(name));

const run = { steps: 6, rank: 2, evaluation: { every: 3, questions: 2 }, checkpoint: { every: 1, keep: 0 } };

t.test(
  "a full disk ends a run with what is free and what to go on from, and it goes on when there is room",
  async (t) => {
    const disk = mountDisk(1_200_000);
    if (disk === undefined) return t.comment("skipped: no disk of its own can be mounted here");
    const file = worldRunFile(run);
    const [straight, full] = [path.join(temporary(), "a"), path.join(disk, "b")];
    t.equal((await rolegrad(["train", file, "--out", straight])).status, 0);
    const ballast = path.join(disk, "ballast");
    writeFileSync(ballast, Buffer.alloc(300_000));
    const failed = await rolegrad(["train", file, "--out", full]);
    t.equal(failed.status, 1);
    t.match(
      failed.stderr,
      /\[ERR_DISK_FULL\]: Expected room for .* but the disk is full \(ENOSPC\): \d\.\d MiB are free there\. The newest whole checkpoint is .*step-00000\d; the same command goes on/,
    );
    t.same(partials(full), [], "nothing is half-written");
    rmSync(ballast);
    spawnSync("mount", ["-o", "remount,size=8000000", disk]);
    const rest = await rolegrad(["train", file, "--out", full, "--json"]);
    t.equal(rest.status, 0, rest.stdout);
    t.ok((JSON.parse(rest.stdout.split("\n")[0]!) as { step: number }).step > 0, "it goes on");
    sameFiles(t, trained(full), trained(straight), "the same files as a run with room");
  },
);

t.test("a limit of file sizes is one of room, too", onLinux, async (t) => {
  const file = worldRunFile(run);
  const out = path.join(path.dirname(file), "out");
  const command = `ulimit -f 40; exec "${process.execPath}" "${path.join(root, "bin/rolegrad.js")}" train "${file}"`;
  const failed = await runProgram("bash", ["-c", command]);
  t.match(failed, {
    status: 1,
    stderr:
      /ERR_DISK_FULL.*adapter_model\.safetensors.*limit of file sizes is reached \(EFBIG\).*No checkpoint had been written/,
  });
  t.same(partials(out), []);
  t.equal((await rolegrad(["train", file])).status, 0);
});

t.test("a directory that cannot be written is refused before anything is trained", async (t) => {
  const file = worldRunFile(run);
  const folder = temporary();
  const taken = path.join(folder, "file");
  writeFileSync(taken, "mine");
  for (const out of [taken, path.join(taken, "below")]) {
    const refused = await rolegrad(["train", file, "--out", out, "--json"]);
    t.equal(refused.status, 1);
    const [only, ...rest] = refused.stdout.trimEnd().split("\n");
    t.match(JSON.parse(only!), {
      error: { code: "ERR_WRITE", message: new RegExp(`Expected to write ${out}.*No checkpoint`) },
    });
    t.same(rest, [], "nothing before it");
  }
  await t.rejects(writeDurable(path.join(taken, "x"), "y"), { code: "ERR_WRITE" });
  const disk = mountDisk(1_000_000);
  if (disk === undefined) return t.comment("skipped: no disk of its own can be mounted here");
  const out = path.join(disk, "run");
  t.equal((await rolegrad(["train", file, "--out", out, "--steps", "1"])).status, 0);
  spawnSync("mount", ["-o", "remount,ro", disk]);
  const before = contents(out);
  const refused = await rolegrad(["train", file, "--out", out]);
  t.match(refused, { status: 1, stderr: /ERR_WRITE.*EROFS.*The newest whole checkpoint is .*step-000001/, stdout: "" });
  sameFiles(t, contents(out), before, "it is as it was");
});

t.test("a file system that has no room for folders refuses at once", onLinux, async (t) => {
  await t.rejects(makeFolder("/proc/no/folder"), { code: "ERR_WRITE", message: /\/proc\/no/ });
  const parent = temporary();
  await makeFolder(path.join(parent, "a/b/c"));
  await makeFolder(path.join(parent, "a/b/c"));
  writeFileSync(path.join(parent, "file"), "");
  await t.rejects(makeFolder(path.join(parent, "file/below")), { code: "ERR_WRITE" });
  await t.rejects(makeFolder(path.join(parent, "file")), { code: "ERR_WRITE" });
});

t.test("what cannot be written leaves what was there", onLinux, async (t) => {
  const folder = temporary();
  const file = path.join(folder, "a.json");
  await writeDurable(file, "before");
  mkdirSync(`${file}.partial`);
  await t.rejects(writeDurable(file, "after"), { code: "ERR_WRITE", message: /a\.json/ });
  t.match(contents(folder).get("a.json"), "before");
});
