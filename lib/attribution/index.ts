/**
 * Attribution on a table of accuracies: no model, no configuration, nothing of the agent side is loaded.
 * @module
 */
export { RolegradError, type RolegradErrorOptions } from "../errors.js";
export {
  type AccuracyBin,
  type AccuracyBinOptions,
  type AccuracyHalvesOptions,
  effectsByAccuracy,
  effectsByHalves,
} from "./accuracy-bins.js";
export { fitEffects, RankDeficientError } from "./effects.js";
export { factorialDesign, type TrainedOn } from "./factorial.js";
export { type HalvesOptions, splitHalves } from "./halves.js";
export { computeInterference, computeInterferenceSync } from "./interference.js";
export { signTest, wilcoxonTest } from "./naive-tests.js";
export { type SamplePlanOptions, planSamples, type QuestionSpread, type SamplePlan } from "./plan.js";
export { readAccuracyTable } from "./read/index.js";
export type {
  AccuracySource,
  ReadAccuracyOptions,
  AccuracyFile,
  LoadedAccuracy,
  AccuracyFields,
  AccuracyFormat,
  VariantSource,
} from "./read/index.js";
export {
  type InterferenceFigure,
  interferenceCsv,
  interferenceFigures,
  interferencePage,
  type InterferenceRenderOptions,
} from "./render/index.js";
export type { NullDistribution } from "./null-distribution.js";
export { summary } from "./summary.js";
export type {
  AccuracyRow,
  AccuracyRows,
  AccuracyTable,
  AsyncInterferenceOptions,
  DenseAccuracy,
  DenseSeeds,
  Design,
  EffectCovariance,
  Effects,
  EffectsFit,
  Estimate,
  FitOptions,
  Interference,
  InterferenceOptions,
  InterferenceShare,
  ModelReport,
  Population,
  Resampling,
  SeedReport,
  Smoothing,
  TestResult,
  TrainedVariant,
  Unavailable,
  VarianceComponents,
  Variant,
  VariantName,
  WilcoxonOptions,
} from "./types.js";
