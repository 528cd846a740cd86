// Headless Chromium, where the machine has one.
import { accessSync, constants, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import type { Test } from "tap";
import { chromium, type Browser, type BrowserContext, type BrowserContextOptions, type Page } from "playwright-core";

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

/** Opens a page of its own. */
export type OpenPage = (url: string, options?: BrowserContextOptions) => Promise<Page>;

/**
 * A test with pages of a browser. It fails where a page writes to its console, throws, opens a dialog, or asks anything but the server (or the file)
 * that it came from.
 */
export async function withPages(t: Test, browser: Browser, body: (open: OpenPage) => Promise<void>): Promise<void> {
  const wrong: string[] = [];
  const contexts: BrowserContext[] = [];
  const open: OpenPage = async (url, options = {}) => {
    const context = await browser.newContext({ reducedMotion: "reduce", ...options });
    contexts.push(context);
    context.setDefaultTimeout(20_000);
    const page = await context.newPage();
    page.on("console", (message) => wrong.push(`console ${message.type()}: ${message.text()}`));
    page.on("pageerror", (error) => wrong.push(`error: ${String(error)}`));
    page.on("dialog", (dialog) => {
      wrong.push(`dialog: ${dialog.message()}`);
      void dialog.dismiss();
    });
    const { origin, protocol } = new URL(url);
    const own = protocol === "file:" ? url.replace(/#.*/, "") : `${origin}/`;
    page.on("request", (request) => {
      if (!request.url().startsWith(own)) wrong.push(`request: ${request.url()}`);
    });
    await page.goto(url);
    return page;
  };
  try {
    await body(open);
    t.strictSame(wrong, [], "the console is clean and no other host is asked");
  } finally {
    for (const context of contexts) await context.close();
  }
}

/** What axe-core finds wrong with a page, by all its rules (contrast of text is one) or some. */
export async function violations(page: Page, rules?: readonly string[]): Promise<string[]> {
  if (await page.evaluate("typeof axe === 'undefined'"))
    await page.evaluate(readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8"));
  const options = { resultTypes: ["violations"], ...(rules === undefined ? {} : { runOnly: [...rules] }) };
  interface Found {
    violations: { id: string; nodes: { html: string; failureSummary?: string }[] }[];
  }
  const found = await page.evaluate<Found>(`axe.run(document, ${JSON.stringify(options)})`);
  return found.violations.flatMap(({ id, nodes }) =>
    nodes.map(({ html, failureSummary = "" }) => `${id}: ${html.slice(0, 200)} ${failureSummary}`),
  );
}
