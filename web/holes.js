// holes.js - a text with holes, "Dear [[4]], thank you", as segments for POST /v1/infill. [[2-8]] is
// a hole of two to eight tokens, [[Sir|Madam]] takes one of these texts. Holes that insertion models
// fill may stay empty: [[0-8]].

const HOLE = /\[\[(?:(\d{1,4})(?:-(\d{1,4}))?|((?:(?!\[\[|\]\])[^|])+(?:\|(?:(?!\[\[|\]\])[^|])+)+))\]\]/g;

function hole([, low, high, choices]) {
  if (choices) return { choices: choices.split('|') };
  const min = Number(low), max = Number(high ?? low);
  if (max < 1 || min > max) return null;
  return min === max ? { max } : { min, max };
}

/** [{ text }] and [{ hole: { max }, or { min, max }, or { choices } }] in reading order; null when
 *  there is no hole. */
export function holes(text) {
  const parts = [];
  let from = 0, any = false;
  for (const m of text.matchAll(HOLE)) {
    const h = hole(m);
    if (!h) continue;
    if (m.index > from) parts.push({ text: text.slice(from, m.index) });
    parts.push({ hole: h });
    from = m.index + m[0].length;
    any = true;
  }
  if (!any) return null;
  if (from < text.length) parts.push({ text: text.slice(from) });
  return parts;
}

/** Tokens to fill at most. */
export const columns = parts => parts.reduce((n, p) => n + (p.hole?.max ?? 0), 0);
