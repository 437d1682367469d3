/** "Did you mean": the nearest right name to a wrong one. */
import { distance } from 'fastest-levenshtein';

/** The name in `names` nearest to `word`, or `undefined` where none is near enough to be a slip. Case does not count. */
export function nearest(word: string, names: Iterable<string>): string | undefined {
  let best: string | undefined;
  let least = Number.POSITIVE_INFINITY;
  for (const name of names) {
    const edits = distance(word.toLowerCase(), name.toLowerCase());
    if (edits < least) {
      least = edits;
      best = name;
    }
  }
  if (best === undefined) return undefined;
  return least <= Math.max(2, Math.floor(Math.max(word.length, best.length) * 0.4)) ? best : undefined;
}

/** ` Did you mean "epochs"?`, or the list of all names where none is near. Empty for an empty list. */
export function suggestion(word: string, names: readonly string[]): string {
  const name = nearest(word, names);
  if (name !== undefined) return `Did you mean "${name}"?`;
  return names.length === 0 ? '' : `Known: ${names.join(', ')}.`;
}
