export { ServerError, type ServerConnectionOptions } from "./connection.js";
export { endpointSampler, serverSampler, type EndpointSamplerOptions, type ServerSamplerOptions } from "./sampler.js";
export { SglangServer } from "./sglang.js";
export type { Generated, GenerateRequest, SamplingServer, ServedModel, ServerOptions } from "./types.js";
export { VllmServer } from "./vllm.js";
