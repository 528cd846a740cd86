export { McpClient, type McpClientOptions, type McpTool } from "./client.js";
export type { RawResult as McpResult } from "./connection.js";
export { McpEnvironment, type McpOptions, type McpToolOptions } from "./environment.js";
export type { McpAddress, McpProgram, McpServer } from "./server.js";
