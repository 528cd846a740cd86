// The reward of every gold query, which must be 1: node check-gold.mjs RUN.json
// Databases, field names and tags that do not fit the data show here, before hours of training.
import { loadRun, readRunConfig } from "rolegrad";

const config = await readRunConfig(process.argv[2] ?? "run.json");
const setup = await loadRun(config, { evaluationOnly: true });
try {
  const { rollout, questions, evaluation } = setup;
  const { open, close } = config.agent.answer;
  const all = [...questions, ...evaluation.questions];
  let right = 0;
  for (const question of all) {
    const gold = question[config.environment.gold];
    const score = await rollout.reward({ response: `${open}${gold}${close}`, calls: [], finish: "stop" }, question);
    if (score === 1) right++;
    else console.log(`${question.id}: ${gold}`);
  }
  console.log(`${right} of ${all.length} gold queries score 1`);
  process.exitCode = right === all.length ? 0 : 1;
} finally {
  setup.close();
}
