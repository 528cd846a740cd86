export type { ChatTool } from "./calls.js";
export { chatRenderer, type ChatRenderer, type ChatRendererOptions } from "./chat.js";
export { encodeAround } from "./encode.js";
export type { ParsedCall, Renderer, SampledCall } from "./renderer.js";
export { tagInstruction, tagRenderer, type TagRendererOptions, type TagSpan } from "./tags.js";
export type { CallFormat, TemplateDifference } from "./template.js";
