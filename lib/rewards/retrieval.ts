import type { CallRecord, Passage, Question } from "../environments/types.js";
import { coverMatch } from "./cover-match.js";

/**
 * Whether a gold answer occurs in a passage that any call retrieved: in its title and text (joined by a line break), in SQuAD's normal form,
 * as whole words ({@link coverMatch}). Calls without passages retrieve nothing.
 *
 * @example
 * retrievalHit(trajectory, question); // true or false; its mean over questions is the retrieval accuracy
 */
export function retrievalHit(
  trajectory: { calls: readonly Pick<CallRecord, "passages">[] },
  question: Pick<Question, "answers">,
): boolean {
  return trajectory.calls.some(({ passages = [] }) =>
    passages.some((passage) => coverMatch(passageText(passage), question.answers) === 1),
  );
}

const passageText = ({ title, text }: Passage): string => (title === undefined ? text : `${title}\n${text}`);
