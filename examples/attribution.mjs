// Five questions, each answered 50 times by each variant: how many answers were right?
import { computeInterference, summary } from "rolegrad/attribution";
const trained = { reas: [18, 31, 44, 9, 27], tool: [22, 35, 46, 14, 33], unified: [25, 38, 45, 24, 36] };
const others = { base: [10, 24, 37, 6, 20], hybridTool: [17, 30, 42, 10, 27], hybridReas: [15, 28, 41, 7, 24] };
const result = await computeInterference({ samples: 50, correct: { ...trained, ...others } });
console.log(summary(result));
