export { measureVariants, type MeasuredPolicy, type MeasureVariantsOptions } from "./measure.js";
export { PLANS as experimentPlans, type Cell, type DialectSetting, type ExperimentPlan, type Study } from "./plan.js";
export { writeExperimentReport } from "./report.js";
export type { CellResult, Comparison, ExperimentResults, GroupResult } from "./results.js";
export type { LeasResult } from "./leas.js";
export {
  runExperiment,
  type CellState,
  type CellStatus,
  type ExperimentEnd,
  type ExperimentHooks,
  type RunExperimentOptions,
} from "./runner.js";
