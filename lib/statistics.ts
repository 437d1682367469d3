/**
 * What so few images can tell: intervals of error rates, and whether two networks differ. A few lines each; the libraries that have
 * them bring dozens of packages along.
 */

/** The 97.5th percentile of the normal distribution: two-sided 95 %. */
const Z = 1.959963984540054;

/**
 * Wilson's 95 % interval of a share that was seen in `n` images, as [low, high] from 0 to 1 (E. B. Wilson, 1927). Unlike the normal
 * approximation it is right at 0 and at 1, too. [0, 1] for no image.
 */
export function wilson(share: number, n: number): [number, number] {
  if (n === 0) return [0, 1];
  const square = Z * Z;
  const middle = (share + square / (2 * n)) / (1 + square / n);
  const half = (Z / (1 + square / n)) * Math.sqrt((share * (1 - share)) / n + square / (4 * n * n));
  return [share === 0 ? 0 : Math.max(0, middle - half), share === 1 ? 1 : Math.min(1, middle + half)];
}

/**
 * The two-sided p-value of McNemar's exact test: how often two networks of equal quality would differ at least this much, where one alone is right
 * on `first` images and the other alone on `second`. Those on which both are right or both wrong tell nothing.
 */
export function mcnemar(first: number, second: number): number {
  const n = first + second;
  const least = Math.min(first, second);
  // ln of C(n, k) / 2^n, from each k to the next.
  let log = -n * Math.LN2;
  let tail = Math.exp(log);
  for (let k = 1; k <= least; k += 1) {
    log += Math.log((n - k + 1) / k);
    tail += Math.exp(log);
  }
  return Math.min(1, 2 * tail);
}

/**
 * The share of a hit that `label` earns among the `k` most probable classes, 0 to 1: where it ties for the last places, it gets
 * (places left) / (classes that tie), as in the 2012 code. A NaN earns nothing.
 */
export function credit(probabilities: ArrayLike<number>, label: number, k: number): number {
  const own = probabilities[label] ?? 0;
  let above = 0;
  let tied = 0;
  for (let index = 0; index < probabilities.length; index += 1) {
    const other = probabilities[index] ?? 0;
    if (other > own) above += 1;
    else if (other === own) tied += 1;
  }
  return tied === 0 ? 0 : Math.min(1, Math.max(0, k - above) / tied);
}

/** The indices of the `k` largest numbers, the largest first; of equal ones the lower index. */
export function largest(numbers: ArrayLike<number>, k: number): number[] {
  const order = Array.from(numbers, (_, index) => index);
  order.sort((a, b) => (numbers[b] ?? 0) - (numbers[a] ?? 0) || a - b);
  return order.slice(0, k);
}
