/** The precisions that a model can be loaded in. @internal */
export const PRECISIONS = ["exact", "bf16-multiply"] as const;

/** What the products with a model's weights multiply: f32, or operands rounded to bf16. */
export type Precision = (typeof PRECISIONS)[number];
