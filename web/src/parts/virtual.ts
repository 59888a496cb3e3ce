import { useEffect, useState, type RefObject } from 'react';

/** Rows of the window, some to spare above and below; the rest is only height. */
export function visibleRange(scrollTop: number, height: number, rowHeight: number, count: number, spare = 8): { first: number; last: number } {
  const first = Math.max(0, Math.floor(scrollTop / rowHeight) - spare);
  const last = Math.min(count, Math.ceil((scrollTop + height) / rowHeight) + spare);
  return { first: Math.min(first, last), last };
}

/** Follows a scrolling element; draws anew only when other rows come into sight. */
export function useVisibleRange(box: RefObject<HTMLElement | null>, rowHeight: number, count: number): { first: number; last: number } {
  const [range, setRange] = useState(() => visibleRange(0, 800, rowHeight, count));
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const look = () => {
      const next = visibleRange(element.scrollTop, element.clientHeight, rowHeight, count);
      setRange((known) => (known.first === next.first && known.last === next.last ? known : next));
    };
    look();
    element.addEventListener('scroll', look, { passive: true });
    const observer = new ResizeObserver(look);
    observer.observe(element);
    return () => {
      element.removeEventListener('scroll', look);
      observer.disconnect();
    };
  }, [box, rowHeight, count]);
  return range;
}

export function useMedia(query: string): boolean {
  const [matches, setMatches] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const media = matchMedia(query);
    const change = () => setMatches(media.matches);
    media.addEventListener('change', change);
    return () => media.removeEventListener('change', change);
  }, [query]);
  return matches;
}
