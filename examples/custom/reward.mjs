import { exactMatch } from "rolegrad";

/** What an answer earns: 1 where it is right, less a price for each call. It may be async, to ask a server, say. */
export default async function thrifty({ response, calls }, question, { price = 0.01 } = {}) {
  const { score: right } = exactMatch(response, question.answers);
  return { score: right - price * calls.length, parts: { right, calls: calls.length } };
}
