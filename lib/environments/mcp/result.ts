import type { RawResult } from "./connection.js";

/**
 * What the model reads of a result: its texts, a line break between them. What is no text is named in brackets: [image: image/png, 1234 bytes]. A
 * structured result counts where there is no text, as JSON: a server that has both says the same in both.
 */
export function resultText({ content, structuredContent }: RawResult, maxCharacters: number): string {
  const parts = content.map(partText);
  const some = content.some(({ type }) => type === "text");
  if (!some && structuredContent !== undefined) parts.unshift(JSON.stringify(structuredContent));
  return shortened(parts.length === 0 ? "[empty result]" : parts.join("\n"), maxCharacters);
}

function partText(part: Record<string, unknown>): string {
  const { type, text, mimeType, data, resource, uri, name } = part;
  const kind = typeof mimeType === "string" ? mimeType : undefined;
  switch (type) {
    case "text":
      return String(text);
    case "image":
    case "audio":
      return label(type, [kind, size(data)]);
    case "resource": {
      const { text: own, blob, uri: where, mimeType: as } = resource as Record<string, unknown>;
      return typeof own === "string" ? own : label("resource", [where, as, size(blob)]);
    }
    case "resource_link":
      return label("resource", [name, uri, kind]);
    default:
      return label(String(type), []);
  }
}

function label(what: string, about: unknown[]): string {
  const said = about.filter((each): each is string => typeof each === "string" && each !== "");
  return said.length === 0 ? `[${what}]` : `[${what}: ${said.join(", ")}]`;
}

/** Of base64. */
function size(data: unknown): string | undefined {
  return typeof data === "string" ? `${Buffer.byteLength(data, "base64")} bytes` : undefined;
}

function shortened(text: string, maxCharacters: number): string {
  if (text.length <= maxCharacters) return text;
  // Not within a pair of surrogates.
  const kept = text.slice(0, maxCharacters).replace(/[\ud800-\udbff]$/, "");
  return `${kept}\n[${text.length - kept.length} more characters]`;
}
