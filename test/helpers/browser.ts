// Headless Chromium, where the machine has one.
import { accessSync, constants, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import type { Test } from "tap";
import { chromium, type Browser, type BrowserContextOptions, type Page } from "playwright-core";

function findChromium(): string | undefined {
  const named = process.env["ROLEGRAD_CHROMIUM"];
  if (named) return named;
  const folders = (process.env["PATH"] ?? "").split(path.delimiter);
  const files = ["chromium", "chromium-browser", "google-chrome"].flatMap((name) =>
    folders.map((folder) => path.join(folder, name)),
  );
  return files.find((file) => {
    try {
      accessSync(file, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

const executablePath = findChromium();

/** Options of a test that needs a browser; with ROLEGRAD_REQUIRE_CHROMIUM it does not skip. */
export const needsChromium: { skip?: string } =
  executablePath !== undefined || process.env["ROLEGRAD_REQUIRE_CHROMIUM"]
    ? {}
    : { skip: "no chromium, chromium-browser or google-chrome in PATH (see ROLEGRAD_CHROMIUM)" };

/** A headless browser. No sandbox: as root Chromium has none. */
export function launch(): Promise<Browser> {
  if (executablePath === undefined) throw new Error("Expected chromium in PATH or ROLEGRAD_CHROMIUM");
  return chromium.launch({ executablePath, args: ["--no-sandbox"] });
}

/** A page that may ask only `url`'s server, and whose console stays clean; the test fails where it is not so. */
export async function openPage(
  t: Test,
  browser: Browser,
  url: string,
  options: BrowserContextOptions = {},
): Promise<Page> {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const wrong: string[] = [];
  page.on("console", (message) => wrong.push(`console ${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => wrong.push(`error: ${String(error)}`));
  page.on("dialog", (dialog) => {
    wrong.push(`dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(new URL(url).origin === "null" ? url : new URL(url).origin))
      wrong.push(`request: ${request.url()}`);
  });
  t.teardown(async () => {
    t.strictSame(wrong, [], "the console is clean and no other host is asked");
    await context.close();
  });
  await page.goto(url);
  return page;
}

/** What axe-core finds wrong with a page, contrast of text among it. */
export async function violations(page: Page): Promise<string[]> {
  await page.evaluate(readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8"));
  const found = (await page.evaluate("axe.run(document, { resultTypes: ['violations'] })")) as {
    violations: { id: string; nodes: { html: string; failureSummary?: string }[] }[];
  };
  return found.violations.flatMap(({ id, nodes }) =>
    nodes.map(({ html, failureSummary = "" }) => `${id}: ${html.slice(0, 200)} ${failureSummary}`),
  );
}
