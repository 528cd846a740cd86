// The command line as a whole: versions, help, exit codes, errors, colours, Ctrl-C. Each command has its own test.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import t from "tap";
import { formatBytes, formatSeconds, formatTable } from "../lib/cli/output.js";
import { Progress } from "../lib/cli/progress.js";
import { rolegrad } from "./helpers/command.js";
import { root } from "./helpers/shared.js";

const manifest = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8")) as {
  version: string;
  engines: { node: string };
};

/** A module that makes node say that it is another version, for --import. */
const fakeNode = (version: string) =>
  "--import=data:text/javascript," +
  encodeURIComponent(
    `Object.defineProperty(process, "versions", { value: { ...process.versions, node: "${version}" } });`,
  );

t.test("--version prints the package's version and --help every command with a line about it", async (t) => {
  t.match(await rolegrad(["--version"]), { status: 0, stdout: `${manifest.version}\n` });
  const help = await rolegrad(["--help"]);
  t.equal(help.status, 0);
  for (const command of ["doctor", "build"]) t.match(help.stdout, new RegExp(`^ {2}${command} .*\\w`, "m"));
});

t.test("every command has --help", async (t) => {
  const help = await rolegrad(["--help"]);
  const commands = [...help.stdout.matchAll(/^ {2}([a-z]+) \[/gm)].map((match) => match[1] ?? "");
  t.ok(commands.length >= 2, `${commands.length} commands`);
  for (const command of commands.filter((name) => name !== "help")) {
    const { status, stdout } = await rolegrad([command, "--help"]);
    t.equal(status, 0, `${command} --help`);
    t.match(stdout, `Usage: rolegrad ${command}`);
    t.match(stdout, "--json", `${command} has --json`);
  }
});

t.test("a command line that makes no sense ends with 2 and says why on stderr", async (t) => {
  for (const [args, said] of [
    [[], /Usage: rolegrad/],
    [["docter"], /\[ERR_USAGE\]: unknown command 'docter'[^]*doctor/],
    [["doctor", "--bad"], /unknown option '--bad'/],
    [["doctor", "extra"], /too many arguments/],
  ] as const) {
    const { status, stdout, stderr } = await rolegrad(args);
    t.equal(status, 2, `rolegrad ${args.join(" ")}`);
    t.equal(stdout, "");
    t.match(stderr, said);
  }
});

t.test("with --json an error is an object on stdout", async (t) => {
  const usage = await rolegrad(["doctor", "--bad", "--json"]);
  t.equal(usage.status, 2);
  t.equal(usage.stderr, "");
  t.match(JSON.parse(usage.stdout), { error: { code: "ERR_USAGE", message: "unknown option '--bad'" } });
});

t.test("doctor prints what a bug report needs", async (t) => {
  const { status, stdout, stderr } = await rolegrad(["doctor"]);
  t.equal(stderr, "");
  for (const part of [manifest.version, process.versions.node, process.platform, ".node"]) t.match(stdout, part);
  for (const name of ["numerics", "binary", "cpu", "found", "kernels", "threads", "memory", "limits"])
    t.match(stdout, new RegExp(`^${name} +\\S`, "m"));
  const report = JSON.parse((await rolegrad(["doctor", "--json"])).stdout) as {
    binary: { kind: string; file: string };
    instructionSets: string[];
    threads: { engine: number };
    problems: unknown[];
  };
  t.match(report.binary.file, /rolegrad.*\.node$/);
  t.ok(report.threads.engine >= 1);
  t.equal(status, report.problems.length === 0 ? 0 : 1);
  if (process.arch === "x64") t.equal(stdout.includes("avx2"), report.instructionSets.includes("avx2"));
});

t.test("doctor works without a binary, and says how to build one", async (t) => {
  const empty = mkdtempSync(path.join(tmpdir(), "rolegrad-empty-"));
  const { status, stdout } = await rolegrad(["doctor"], { env: { ROLEGRAD_PREBUILD: empty } });
  t.equal(status, 1);
  t.match(stdout, `[ERR_NO_BINARY]: Expected a rolegrad binary for ${process.platform}-${process.arch}`);
  t.match(stdout, "npx rolegrad build");
});

t.test("ROLEGRAD_THREADS reaches the engine", async (t) => {
  const { stdout } = await rolegrad(["doctor", "--json"], { env: { ROLEGRAD_THREADS: "1" } });
  t.match(JSON.parse(stdout), { threads: { engine: 1 }, environment: { ROLEGRAD_THREADS: "1" } });
});

t.test("doctor names a CPU that cannot run the engine", async (t) => {
  const { status, stdout } = await rolegrad(["doctor"], { env: { ROLEGRAD_ISA: "mmx" } });
  t.equal(status, 1);
  t.match(stdout, /problem \[ERR_CPU_UNSUPPORTED\]: Expected a CPU with ROLEGRAD_ISA=mmx but found /);
});

t.test("a Node that is too old gets a message with both versions, not a syntax error", async (t) => {
  const { status, stderr, stdout } = await rolegrad(["doctor"], { env: { NODE_OPTIONS: fakeNode("18.20.4") } });
  t.equal(status, 1);
  t.equal(stdout, "");
  t.match(stderr, /^error \[ERR_NODE_VERSION\]: Expected Node 20\.19\.0 or newer but received 18\.20\.4 .*\n$/);
  const minimum = /needed = "([\d.]+)"/.exec(readFileSync(path.join(root, "bin/rolegrad.js"), "utf8"))?.[1];
  t.equal(`>=${minimum}`, `${manifest.engines.node}.0`, "as package.json says");
});

t.test("colours only where they are wanted", async (t) => {
  t.notMatch((await rolegrad(["doctor"])).stdout, "\x1b[", "none in a pipe");
  t.match((await rolegrad(["doctor"], { env: { FORCE_COLOR: "1" } })).stdout, "\x1b[1m", "FORCE_COLOR");
  t.notMatch((await rolegrad(["doctor"], { env: { NO_COLOR: "1" } })).stdout, "\x1b[", "NO_COLOR");
  const [piped, forced] = [
    await rolegrad(["inspect", "nowhere"]),
    await rolegrad(["inspect", "nowhere"], { env: { FORCE_COLOR: "1" } }),
  ];
  t.match(piped.stderr, /^error \[ERR_INSPECT\]/, "an error that is piped has none");
  t.match(forced.stderr, "\x1b[1m\x1b[31merror");
});

t.test("a reader that goes away is no error", async (t) => {
  const child = spawn(process.execPath, [path.join(root, "bin/rolegrad.js"), "doctor"], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  child.stdout.destroy();
  let stderr = "";
  child.stderr.on("data", (chunk) => (stderr += String(chunk)));
  const [status] = (await once(child, "close")) as [number];
  t.equal(status, 0);
  t.equal(stderr, "");
});

t.test("the first Ctrl-C aborts with ERR_ABORTED and lets the work end, the second kills", async (t) => {
  const script = `
    import { interruptSignal } from ${JSON.stringify(pathToFileURL(path.join(root, "dist/cli/signal.js")).href)};
    const signal = interruptSignal();
    signal.addEventListener("abort", () => console.log(signal.reason.code));
    console.log("ready");
    setTimeout(() => {}, 60_000);
  `;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", script], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const ended = once(child, "close") as Promise<[number | null, string | null]>;
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  t.equal((await lines.next()).value, "ready");
  child.kill("SIGINT");
  t.equal((await lines.next()).value, "ERR_ABORTED");
  t.equal(child.exitCode, null, "still running after the first");
  child.kill("SIGINT");
  t.strictSame(await ended, [130, null]);
});

t.test("the progress bar draws on a terminal and stays silent elsewhere", async (t) => {
  const draw = (isTTY: boolean): string => {
    let written = "";
    const stream = { isTTY, columns: 60, write: (text: string) => ((written += text), true) };
    const progress = new Progress("training", 4, stream as unknown as NodeJS.WriteStream);
    progress.update(4, "reward 0.42");
    progress.end();
    return written;
  };
  t.equal(draw(false), "");
  t.match(draw(true), /training █+ 4\/4 .*reward/);
  for (const line of draw(true).split("\r")) t.ok(line.replace("\x1b[K", "").length < 60, "fits the terminal");
});

t.test("tables align, and colours do not count as width", async (t) => {
  t.equal(
    formatTable(
      [
        ["a", "1"],
        ["\x1b[1mlong\x1b[22m", "22"],
      ],
      { right: [1] },
    ),
    "a      1\n\x1b[1mlong\x1b[22m  22",
  );
  t.strictSame([0, 1023, 1536, 3 * 2 ** 30].map(formatBytes), ["0 B", "1023 B", "1.5 KiB", "3.0 GiB"]);
  t.strictSame([3.21, 59.4, 75.2, 7300].map(formatSeconds), ["3.2s", "59s", "1m 15s", "2h 1m"]);
});
