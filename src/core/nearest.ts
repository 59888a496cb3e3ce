/** Edit distance with swaps of neighbours counted once (optimal string alignment). */
function distance(a: string, b: string): number {
  const width = b.length + 1;
  const cells = Array.from<number>({ length: (a.length + 1) * width }).fill(0);
  const at = (i: number, j: number) => cells[i * width + j]!;
  for (let i = 0; i <= a.length; i += 1) cells[i * width] = i;
  for (let j = 0; j <= b.length; j += 1) cells[j] = j;
  for (let i = 1; i <= a.length; i += 1) {
    for (let j = 1; j <= b.length; j += 1) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      let best = Math.min(at(i - 1, j) + 1, at(i, j - 1) + 1, at(i - 1, j - 1) + same);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) best = Math.min(best, at(i - 2, j - 2) + 1);
      cells[i * width + j] = best;
    }
  }
  return cells.at(-1)!;
}

/** The names that `wanted` was most likely meant to be, nearest first, at most `most`; none where nothing is near. Case counts little. */
export function nearestNames(wanted: string, known: Iterable<string>, most = 3): string[] {
  const low = wanted.toLowerCase();
  const limit = Math.max(1, Math.floor(wanted.length / 3));
  const scored: { name: string; score: number }[] = [];
  for (const name of new Set(known)) {
    const other = name.toLowerCase();
    if (other === low) scored.push({ name, score: 0.5 });
    else if (Math.abs(other.length - low.length) <= limit) {
      const score = distance(low, other);
      if (score <= limit) scored.push({ name, score });
    } else if (low.length >= 4 && other.includes(low)) scored.push({ name, score: limit + 1 });
  }
  return scored.sort((a, b) => a.score - b.score || (a.name < b.name ? -1 : 1)).slice(0, most).map((x) => x.name);
}

/** `Did you mean "a" or "b"?`, or the empty text where nothing is near. */
export function didYouMean(wanted: string, known: Iterable<string>): string {
  const names = nearestNames(wanted, known).map((name) => `"${name}"`);
  if (names.length === 0) return '';
  return `Did you mean ${names.length === 1 ? names[0] : `${names.slice(0, -1).join(', ')} or ${names.at(-1)}`}?`;
}
