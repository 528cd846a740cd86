import { escape, type Html } from "./html.js";

/** A whole page that loads nothing. `policy`: what it may, as its Content-Security-Policy says it. */
export function htmlDocument({
  title,
  policy,
  style,
  body,
  bodyAttributes = "",
  script,
}: {
  title: string;
  policy: string;
  style: string;
  body: Html;
  /** Markup, with the space before it. */
  bodyAttributes?: string;
  script?: string;
}): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="color-scheme" content="light dark">
<title>${escape(title)}</title>
<style>${style}</style>
</head>
<body${bodyAttributes}>
${body.text}
${script === undefined ? "" : `<script>${script}</script>\n`}</body>
</html>
`;
}
