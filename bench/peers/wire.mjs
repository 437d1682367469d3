/** How a peer in JavaScript talks with the bench: a JSON object per line on stdin, one in answer on stdout. */
import { createInterface } from 'node:readline';

export const answer = (fields) => process.stdout.write(`${JSON.stringify(fields)}\n`);

/** Answers requests until stdin ends; `verbs` has a function for each type. */
export async function serve(verbs) {
  for await (const line of createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    try {
      answer(await verbs[request.type](request));
    } catch (problem) {
      answer({ type: 'error', message: problem.message });
    }
  }
}
