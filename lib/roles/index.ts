export { RoleRouter, type RoleRouterOptions, type RoleSpan } from "./router.js";
export { joinSpans, parseSpans, type SpanTags, type TextSpan } from "./spans.js";
