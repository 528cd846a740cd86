export type { Device } from "./device.js";
export type { ModelConfig, RopeScaling } from "./config.js";
export type { RecommendedSampling } from "./generation.js";
export {
  loadModel,
  type ForwardOptions,
  type ForwardResult,
  type LoadModelOptions,
  type Model,
  type PackedInput,
} from "./model.js";
export type { Precision } from "./precision.js";
export { saveModel } from "./save.js";
export { loadTokenizer, type ChatMessage, type ChatTemplateOptions, type Tokenizer } from "./tokenizer.js";
