// Sizes below which a figure cannot be had.

/**
 * Below so many kept questions that are not saturated the model, with its 14 parameters, is not fitted: a saturated one
 * says next to nothing, and a table of them would be fitted with certainty.
 */
export const fewestQuestions = 30;
/** Below so many clusters an error that is the spread over them is too small, whatever the quantile. */
export const fewestClusters = 10;
/**
 * Below so many samples a cell, on average, a question's posterior of lambda23 is no normal distribution: intervals of mean23 covered 85 to 90 %
 * of 10 samples where effects are mixed, and 87 to 90 % of 5.
 */
export const fewestSamples = 20;
