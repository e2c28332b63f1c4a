// api.js - the server's REST interface as the page uses it: the list of models, and one streamed
// request. Server-sent events over POST need fetch and a reader; EventSource can only GET.

/** An error answer: message for people, param the field it names (or null). */
export class ApiError extends Error {
  constructor(status, body) {
    const e = body?.error ?? {};
    super(e.message ?? `the server answered ${status}`);
    this.status = status;
    this.param = e.param ?? null;
    this.code = e.code ?? null;
  }
}

let key = sessionStorage.getItem('key') ?? '';

/** For servers that ask for one; kept until the tab is closed. */
export function setKey(text) {
  key = text;
  sessionStorage.setItem('key', text);
}

export const hasKey = () => key !== '';
const headers = () => key ? { Authorization: `Bearer ${key}` } : {};

async function refuse(response) {
  let body = null;
  try { body = await response.json(); } catch { /* not JSON: the status says it */ }
  throw new ApiError(response.status, body);
}

/** The models served, with their samplers and parameters in the member `tutti`. */
export async function models() {
  const response = await fetch('v1/models', { headers: headers() });
  if (!response.ok) await refuse(response);
  return (await response.json()).data;
}

/** The names image models know: [{ model, groups: [{ name, labels }] }]. */
export async function imageLabels() {
  const response = await fetch('v1/images/labels', { headers: headers() });
  if (!response.ok) await refuse(response);
  return (await response.json()).data;
}

/** Yields the data of each event; ends at [DONE] or when the connection ends. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    for (let end; (end = text.indexOf('\n\n')) >= 0; text = text.slice(end + 2)) {
      const data = text.slice(0, end).split('\n').filter(l => l.startsWith('data:'))
        .map(l => l.slice(5).trimStart()).join('\n');
      if (data === '[DONE]') return;
      if (data) yield JSON.parse(data);
    }
  }
}

/** Sends body to path and calls onFrame with every chunk; throws ApiError on a refused request
 *  and on an error frame, DOMException AbortError when signal aborts. */
export async function stream(path, body, { signal, onFrame }) {
  const response = await fetch(path, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...headers() },
    body: JSON.stringify(body),
    signal,
  });
  if (!response.ok) await refuse(response);
  for await (const chunk of events(response)) {
    if (chunk.error) throw new ApiError(response.status, chunk);
    onFrame(chunk);
  }
}
