// holes.js - a text with holes, "Dear [[4]], thank you", as segments for POST /v1/infill.

const HOLE = /\[\[(\d{1,4})\]\]/g;

/** [{ text }] and [{ hole: n }] in reading order; null when there is no hole. */
export function holes(text) {
  const parts = [];
  let from = 0;
  for (const m of text.matchAll(HOLE)) {
    if (Number(m[1]) === 0) continue;
    if (m.index > from) parts.push({ text: text.slice(from, m.index) });
    parts.push({ hole: Number(m[1]) });
    from = m.index + m[0].length;
  }
  if (!parts.length) return null;
  if (from < text.length) parts.push({ text: text.slice(from) });
  return parts;
}

export const columns = parts => parts.reduce((n, p) => n + (p.hole ?? 0), 0);
