// The official Node client against a running server (URL), unmodified: what works with it here
// works with everything built on it. MODEL and IMAGE_MODEL are ids, KEY their key. Node's own test
// runner.
import test from 'node:test';
import assert from 'node:assert/strict';
import http from 'node:http';
import zlib from 'node:zlib';
import OpenAI, { toFile } from 'openai';
import SwaggerParser from '@apidevtools/swagger-parser';

const url = process.env.URL, model = process.env.MODEL, apiKey = process.env.KEY;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey, timeout: 60_000 });
const messages = [{ role: 'user', content: 'What is a whale?' }];
const prompt = 'Once upon a time';

async function all(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

async function metric(name) {
  const text = await (await fetch(`${url}/metrics`, { headers: { Authorization: `Bearer ${apiKey}` } })).text();
  const line = text.split('\n').find(l => l.startsWith(name));
  assert.ok(line, `no metric ${name}`);
  return Number(line.split(' ').pop());
}

async function until(condition, what) {
  for (let i = 0; i < 200; i++) {
    if (await condition()) return;
    await new Promise(r => setTimeout(r, 25));
  }
  assert.fail(`did not happen: ${what}`);
}

test('models are listed and found one by one, also under ids with slashes', async () => {
  const ids = [];
  for await (const m of client.models.list()) ids.push(m.id);
  assert.ok(ids.includes(model));
  const one = await client.models.retrieve(model);
  assert.equal(one.object, 'model');
  assert.ok(one.tutti.samplers.some(s => s.name === one.tutti.default_sampler));
  const slashed = await client.models.retrieve('org/other');
  assert.equal(slashed.id, 'org/other');
});

test('chat answers', async () => {
  const r = await client.chat.completions.create({ model, messages, max_completion_tokens: 16 });
  assert.equal(r.object, 'chat.completion');
  assert.equal(r.choices[0].message.role, 'assistant');
  assert.equal(typeof r.choices[0].message.content, 'string');
  assert.ok(['stop', 'length'].includes(r.choices[0].finish_reason));
  assert.equal(r.usage.total_tokens, r.usage.prompt_tokens + r.usage.completion_tokens);
  assert.match(r._request_id, /^req_/);
});

test('chat streams, with usage last', async () => {
  const body = { model, messages, max_tokens: 16, seed: 1 };
  const chunks = await all(await client.chat.completions.create({
    ...body, stream: true, stream_options: { include_usage: true } }));
  assert.deepEqual(chunks[0].choices[0].delta, { role: 'assistant', content: '' });
  const last = chunks.pop(), close = chunks.at(-1);
  assert.deepEqual(last.choices, []);
  assert.ok(chunks.every(c => c.usage === null));
  assert.deepEqual(close.choices[0].delta, {});
  assert.ok(['stop', 'length'].includes(close.choices[0].finish_reason));
  assert.equal(new Set(chunks.map(c => c.id)).size, 1);
  const text = chunks.map(c => c.choices[0].delta.content ?? '').join('');
  const whole = await client.chat.completions.create(body);
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(last.usage.completion_tokens, whole.usage.completion_tokens);
});

test('the stream ends with [DONE] exactly', async () => {
  const r = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${apiKey}` },
    body: JSON.stringify({ model, messages, stream: true, max_tokens: 4 }),
  });
  assert.equal(r.headers.get('content-type'), 'text/event-stream; charset=utf-8');
  const text = await r.text();
  assert.ok(text.endsWith('}\n\ndata: [DONE]\n\n'));
  for (const frame of text.split('\n\n').slice(0, -2)) JSON.parse(frame.slice('data: '.length));
});

test('the streaming helper assembles the message', async () => {
  const runner = client.chat.completions.stream({ model, messages, max_tokens: 12 });
  const final = await runner.finalChatCompletion();
  assert.equal(typeof final.choices[0].message.content, 'string');
});

test('completions take text, texts, ids and lists of ids', async () => {
  const { tokens } = await (await fetch(`${url}/v1/tokenize`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${apiKey}` },
    body: JSON.stringify({ model, prompt }),
  })).json();
  const ask = async p => (await client.completions.create(
    { model, prompt: p, max_tokens: 6 })).choices.map(c => c.text);
  const [one] = await ask(prompt);
  assert.deepEqual(await ask([prompt, prompt]), [one, one]);
  assert.deepEqual(await ask(tokens), [one]);
  assert.deepEqual(await ask([tokens, tokens]), [one, one]);
});

test('completions stream the same text', async () => {
  const body = { model, prompt, max_tokens: 12, seed: 5, temperature: 0.8, n: 2 };
  const whole = await client.completions.create(body);
  const chunks = await all(await client.completions.create({ ...body, stream: true }));
  for (const i of [0, 1]) {
    const text = chunks.flatMap(c => c.choices).filter(c => c.index === i).map(c => c.text).join('');
    assert.equal(text, whole.choices[i].text);
  }
});

test('a suffix is honoured, echo and logprobs line up', async () => {
  const gap = await client.completions.create(
    { model, prompt: 'The cat', suffix: ' on the mat.', max_tokens: 3 });
  assert.equal(gap.usage.completion_tokens, 3);
  const r = await client.completions.create(
    { model, prompt, max_tokens: 5, echo: true, logprobs: 3 });
  const { text, logprobs: l } = r.choices[0];
  assert.ok(text.startsWith(prompt));
  assert.equal(l.tokens.length, l.token_logprobs.length);
  l.tokens.forEach((token, i) => {
    if (!token.startsWith('bytes:'))
      assert.equal(text.slice(l.text_offset[i], l.text_offset[i] + token.length), token);
    assert.ok(l.token_logprobs[i] <= 0);
    assert.ok(Object.keys(l.top_logprobs[i]).length >= 3);
  });
});

test('chat logprobs', async () => {
  const r = await client.chat.completions.create(
    { model, messages, max_tokens: 5, logprobs: true, top_logprobs: 2 });
  for (const t of r.choices[0].logprobs.content) {
    assert.equal(Buffer.from(t.bytes).toString(), t.token);
    assert.equal(t.top_logprobs.length, 2);
    assert.ok(t.top_logprobs[0].logprob >= t.top_logprobs[1].logprob);
  }
});

test('same seed, same answer; another seed, another', async () => {
  const ask = async seed => (await client.completions.create(
    { model, prompt, max_tokens: 24, seed, temperature: 1 })).choices[0].text;
  assert.equal(await ask(11), await ask(11));
  const others = await Promise.all([1, 2, 3, 4].map(ask));
  assert.ok(new Set(others).size > 1);
});

test('stop strings end the text', async () => {
  const whole = await client.completions.create({ model, prompt, max_tokens: 24 });
  const word = whole.choices[0].text.trim().split(/\s+/)[2];
  const cut = await client.completions.create({ model, prompt, max_tokens: 24, stop: word });
  assert.equal(cut.choices[0].text, whole.choices[0].text.split(word)[0]);
  assert.equal(cut.choices[0].finish_reason, 'stop');
});

test('logit_bias bans a token', async () => {
  const one = await client.completions.create({ model, prompt, max_tokens: 1, logprobs: 1 });
  const { tokens } = await client.post('/tokenize', {
    body: { model, content: one.choices[0].text, add_special: false } });
  const banned = await client.completions.create(
    { model, prompt, max_tokens: 1, logit_bias: { [tokens[0]]: -100 } });
  assert.notEqual(banned.choices[0].text, one.choices[0].text);
});

test('the extension object passes through', async () => {
  const r = await client.completions.create({
    model, prompt, max_tokens: 16, tutti: { sampler: 'threshold', threshold: 0.5, trace: true } });
  assert.equal(r.tutti.sampler, 'threshold');
  assert.equal(r.tutti.parameters.threshold, 0.5);
  assert.ok(r.tutti.nfe <= 16);
  assert.ok(r.choices[0].tutti.trace.every(t => t.step >= 1 && t.logprob <= 0));
  const chunks = await all(await client.completions.create({
    model, prompt, max_tokens: 16, stream: true, tutti: { stream_mode: 'delta' } }));
  const canvas = [];
  for (const e of chunks.flatMap(c => c.tutti?.events ?? [])) canvas[e.pos] = e.id;
  assert.ok(canvas.length > 0 && canvas.length <= 16);
  assert.equal(typeof chunks.at(-1).tutti.text, 'string');
});

test('snapshots end with the final text', async () => {
  const chunks = (await all(await client.chat.completions.create(
    { model, messages, max_tokens: 12, stream: true, tutti: { stream_mode: 'snapshot' } })))
    .filter(c => c.diffusion_meta);
  const whole = await client.chat.completions.create({ model, messages, max_tokens: 12 });
  assert.equal(chunks.at(-1).diffusion_meta.diffusion_progress, 1);
  assert.equal(chunks.at(-1).choices[0].delta.content, whole.choices[0].message.content);
});

test('infill fills every hole', async () => {
  const r = await client.post('/infill', { body: {
    model, segments: [{ text: 'The ' }, { hole: { id: 'a', max: 2 } }, { text: ' sat on the ' },
                      { hole: { max: 2 } }, { text: '.' }] } });
  const { text, holes } = r.choices[0];
  assert.equal(text, `The ${holes.a.text} sat on the ${holes['1'].text}.`);
  assert.equal(holes.a.tokens, 2);
});

test('a hole finds its length, another takes one of several texts', async () => {
  const body = { model, segments: [{ text: 'roman:' }, { hole: { id: 'n', min: 1, max: 7 } },
                                   { text: ' =' }, { hole: { choices: [' MCMXCIV', ' XLII'] } }] };
  const r = await client.post('/infill', { body });
  const { n, '1': roman } = r.choices[0].holes;
  assert.equal(n.lengths.length, 7);
  assert.ok(n.tokens >= 1 && n.tokens <= 7);
  assert.equal(Math.max(...n.lengths.map(l => l.logprob)), n.lengths.find(l => l.tokens === n.tokens).logprob);
  assert.ok([' MCMXCIV', ' XLII'].includes(roman.text));
  const sum = list => list.reduce((s, x) => s + x.probability, 0);
  assert.ok(Math.abs(sum(n.lengths) - 1) < 1e-6 && Math.abs(sum(roman.choices) - 1) < 1e-6);
  const again = await client.post('/infill', { body });
  assert.deepEqual(again.choices[0].holes, r.choices[0].holes);
});

test('embeddings are vectors of length one, whatever the encoding', async () => {
  const input = ['a whale', 'a whale swims', 'roman: 7 = VII'];
  const coded = await client.embeddings.create({ model, input }); // the client asks for base64
  const plain = await client.embeddings.create({ model, input, encoding_format: 'float' });
  assert.equal(coded.object, 'list');
  assert.deepEqual(coded.data.map(d => d.index), [0, 1, 2]);
  for (const [i, { embedding }] of coded.data.entries()) {
    assert.ok(Array.isArray(embedding) && embedding.length > 8);
    assert.ok(Math.abs(Math.hypot(...embedding) - 1) < 1e-5);
    embedding.forEach((x, k) => assert.ok(Math.abs(x - plain.data[i].embedding[k]) < 1e-6));
  }
  assert.equal(coded.usage.total_tokens, coded.usage.prompt_tokens);
  const short = await client.embeddings.create({ model, input: input[0], dimensions: 5 });
  assert.equal(short.data[0].embedding.length, 5);
  const { tokens } = await client.post('/tokenize', { body: { model, content: input[0] } });
  const ids = await client.embeddings.create({ model, input: tokens, encoding_format: 'float' });
  assert.deepEqual(ids.data[0].embedding, plain.data[0].embedding);
  const words = await client.embeddings.create({
    model, input: input[0], tutti: { k: 3, kind: 'passage', outputs: ['dense', 'sparse'] } });
  const extra = words.data[0].tutti;
  assert.ok(extra.dense.length >= 1 && extra.dense.length <= 3);
  assert.equal(extra.sparse.length, extra.dense.length);
});

test('embeddings do not depend on what runs beside them', async () => {
  const ask = () => client.embeddings.create({ model, input: 'alone', encoding_format: 'float' });
  const alone = (await ask()).data[0].embedding;
  const [beside] = await Promise.all([ask(), ...[1, 2, 3].map(seed => client.completions.create(
    { model, prompt, max_tokens: 12, seed, temperature: 1 }))]);
  assert.deepEqual(beside.data[0].embedding, alone);
});

test('documents are ranked', async () => {
  const documents = ['the sea is deep', 'roman: 1994 = MCMXCIV', 'add: 1+2 = 3'];
  const r = await client.post('/rerank', { body: { model, query: documents[1], documents, top_n: 2 } });
  assert.equal(r.results.length, 2);
  assert.equal(r.results[0].index, 1);
  assert.equal(r.results[0].document.text, documents[1]);
  assert.ok(r.results[0].relevance_score > r.results[1].relevance_score);
});

test('likelihood tells the right answer from wrong ones', async () => {
  const body = { model, prompt: 'roman: 1994 =', choices: [' MCMXCVI', ' MCMXCIV', ' XLII'], seed: 1,
                 samples: 16 };
  const r = await client.post('/likelihood', { body });
  assert.equal(r.best, 1);
  assert.ok(r.data[1].probability > 0.9 && r.data[1].logprob <= 0);
  for (const d of r.data) {
    const sum = d.token_logprobs.reduce((a, b) => a + b);
    assert.ok(Math.abs(sum - d.logprob) < 1e-4);
    assert.equal(d.tokens.join('').trim(), body.choices[d.index].trim());
    assert.ok(d.standard_error >= 0);
  }
  const again = await client.post('/likelihood', { body });
  assert.deepEqual(again.data, r.data);
  const chain = await client.post('/likelihood', {
    body: { model, prompt: body.prompt, choices: body.choices, method: 'left_to_right' } });
  assert.equal(chain.best, 1);
});

test('a prediction is accepted where it is right', async () => {
  const body = { model, messages: [{ role: 'user', content: 'What is 17 + 25?' }],
                 max_completion_tokens: 24 };
  const plain = await client.chat.completions.create(body);
  const { content } = plain.choices[0].message;
  const r = await client.chat.completions.create({ ...body, prediction: { type: 'content', content } });
  const details = r.usage.completion_tokens_details;
  assert.equal(r.choices[0].message.content, content);
  assert.ok(details.accepted_prediction_tokens > 0);
  assert.ok(r.tutti.nfe <= plain.tutti.nfe);
  const wrong = await client.chat.completions.create({
    ...body, prediction: { type: 'content', content: 'zebra zebra zebra zebra' } });
  assert.ok(wrong.usage.completion_tokens_details.rejected_prediction_tokens > 0);
});

test('an answer that ends early costs few passes', async () => {
  const ask = shrink => client.completions.create({
    model, prompt: 'roman: 1994 =', max_tokens: 48,
    tutti: { sampler: 'low_confidence', block_length: 48, shrink } });
  const [short, long] = [await ask(true), await ask(false)];
  assert.equal(short.choices[0].text, ' MCMXCIV');
  assert.ok(short.tutti.nfe * 2 < long.tutti.nfe, `${short.tutti.nfe} of ${long.tutti.nfe} passes`);
});

test('tokens can be forced, banned and allowed at positions', async () => {
  const { tokens: [ban] } = await client.post('/tokenize', { body: { model, content: 'CM', add_special: false } });
  const r = await client.completions.create({
    model, prompt: 'roman: 1994 =', max_tokens: 8, min_tokens: 6, logprobs: 0,
    tutti: { force: { 0: ' M' }, ban: { 1: [ban] }, allow: { 2: ['XC', 'IV'] } } });
  const { tokens } = r.choices[0].logprobs;
  assert.equal(tokens[0], ' M');
  assert.notEqual(tokens[1], 'CM');
  assert.ok(['XC', 'IV'].includes(tokens[2]));
  assert.ok(tokens.length >= 6);
});

test('errors have the class, code, param and request id', async () => {
  const cases = [
    [{ model: 'nope', prompt }, OpenAI.NotFoundError, 'model_not_found', 'model'],
    [{ model, prompt, max_tokens: 0 }, OpenAI.BadRequestError, 'invalid_value', 'max_tokens'],
    [{ model, prompt, max_tokens: 1e6 }, OpenAI.BadRequestError, 'context_length_exceeded', 'max_tokens'],
    [{ model, prompt, tutti: { x: 1 } }, OpenAI.BadRequestError, 'unknown_parameter', 'tutti.x'],
    [{ model, prompt, n: 2, best_of: 1 }, OpenAI.BadRequestError, 'invalid_value', 'best_of'],
  ];
  for (const [body, type, code, param] of cases)
    await assert.rejects(client.completions.create(body), e => {
      assert.ok(e instanceof type, `${e}`);
      assert.deepEqual([e.code, e.param], [code, param]);
      assert.match(e.requestID, /^req_/);
      return true;
    });
  const stranger = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'wrong' });
  await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
});

test('chat errors name the message', async () => {
  const bad = [{ role: 'user', content: 'x' }, { role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }];
  await assert.rejects(client.chat.completions.create({ model, messages: bad }),
    e => e.param === 'messages[1].content[0].type' && e.code === 'unsupported_value');
  const tools = [{ type: 'function', function: { name: 'f', parameters: {} } }];
  await assert.rejects(client.chat.completions.create({ model, messages, tools }),
    e => e.param === 'tools' && e.code === 'unsupported_parameter');
  const schema = { type: 'object', properties: { a: { type: 'string', pattern: 'x' } } };
  const response_format = { type: 'json_schema', json_schema: { name: 'a', schema } };
  await assert.rejects(client.chat.completions.create({ model, messages, response_format }),
    e => e.param.endsWith('schema.properties.a.pattern') && e.code === 'unsupported_value');
});

const schemas = [
  { type: 'object', required: ['name', 'age', 'tags'], additionalProperties: false,
    properties: { name: { type: 'string', maxLength: 8 }, age: { type: 'integer', minimum: 0 },
                  city: { enum: ['Oslo', 'Rome'] },
                  tags: { type: 'array', items: { type: 'string', maxLength: 5 }, maxItems: 2 } } },
  { type: 'array', items: { anyOf: [{ type: 'boolean' }, { $ref: '#/$defs/n' }] }, minItems: 1,
    $defs: { n: { type: ['number', 'null'] } } },
  { type: 'object' },
];
// sampler, its cache and further parameters; all that this model has
const ways = [
  { sampler: 'low_confidence', cache: 'none' }, { sampler: 'low_confidence', cache: 'dual' },
  { sampler: 'threshold', cache: 'vicinity', threshold: 0.2 },
  { sampler: 'factor', cache: 'prefix', factor: 3 }, { sampler: 'entropy_bound', cache: 'free' },
  { sampler: 'klass', cache: 'dkv' }, { sampler: 'hierarchy', threshold: 0.3 },
  { sampler: 'credit', cache: 'dual', threshold: 0.2 }, { sampler: 'slowfast', fill_threshold: 0.3 },
  { sampler: 'wino', cache: 'prefix', draft_threshold: 0.2 }, { sampler: 'infill', steps: 6 },
  { sampler: 'dream', steps: 8, cache: 'free' }, { sampler: 'dream_fast', threshold: 0.3 },
  { sampler: 'ddpm', steps: 12 }, { sampler: 'analytic', steps: 12 },
  { sampler: 'threshold', threshold: 0.2, cfg_scale: 1 },
];

test('answers under a schema are valid, whatever the sampler, alone as in a crowd', async () => {
  const { default: Ajv } = await import('ajv/dist/2020.js');
  const valid = schemas.map(s => new Ajv({ strict: false }).compile(s));
  const ask = (k, tutti, seed) => client.completions.create({
    model, prompt: 'json: Ada is 36, lives in Oslo and likes green =', max_tokens: 32, seed,
    temperature: 1, tutti,
    response_format: { type: 'json_schema', json_schema: { name: 'a', schema: schemas[k] } } });
  const jobs = ways.flatMap((way, i) => schemas.map((_, k) => [k, way, 3 * i + k]));
  const answers = await Promise.all(jobs.map(j => ask(...j)));
  answers.forEach((a, i) => {
    const [k, way] = jobs[i], { text, finish_reason } = a.choices[0];
    assert.ok(valid[k](JSON.parse(text)), `${JSON.stringify(way)}: ${text}`);
    assert.equal(finish_reason, 'stop');
  });
  assert.ok(new Set(answers.map(a => a.choices[0].text)).size > 8);
  for (let i = 0; i < jobs.length; i += 16)
    assert.equal((await ask(...jobs[i])).choices[0].text, answers[i].choices[0].text);
});

test('chats answer in JSON, also streamed and parsed by the client', async () => {
  const response_format = { type: 'json_schema', json_schema: { name: 'a', strict: true, schema: schemas[0] } };
  const chat = { model, messages, response_format, max_completion_tokens: 48, seed: 5 };
  const parsed = await client.chat.completions.parse(chat);
  assert.equal(typeof parsed.choices[0].message.parsed.age, 'number');
  const chunks = await all(await client.chat.completions.create({ ...chat, stream: true }));
  const text = chunks.map(c => c.choices[0]?.delta?.content ?? '').join('');
  assert.deepEqual(JSON.parse(text), parsed.choices[0].message.parsed);
  const object = await client.chat.completions.create(
    { ...chat, temperature: 1, response_format: { type: 'json_object' } });
  assert.equal(typeof JSON.parse(object.choices[0].message.content), 'object');
});

test('holes match their expressions, at every length', async () => {
  for (let seed = 1; seed <= 4; seed++) {
    const r = await client.post('/infill', { body: { model, seed, temperature: 1, segments: [
      { text: 'roman: ' }, { hole: { id: 'n', min: 1, max: 5, regex: '[1-9][0-9]{3}' } },
      { text: ' =' }, { hole: { id: 'r', min: 1, max: 10, regex: ' [IVXLCDM]+' } }] } });
    const { n, r: roman } = r.choices[0].holes;
    assert.match(n.text, /^[1-9][0-9]{3}$/);
    assert.match(roman.text, /^ [IVXLCDM]+$/);
    assert.equal(r.choices[0].text, `roman: ${n.text} =${roman.text}`);
  }
});

test('aborting a stream frees its place', async () => {
  const before = await metric('tutti_cancelled_total{reason="client"}').catch(() => 0);
  const stream = await client.completions.create(
    { model, prompt, max_tokens: 400, stream: true, tutti: { stream_mode: 'delta' } });
  for await (const chunk of stream) if (chunk.tutti?.step >= 1) break;
  await until(async () => await metric('tutti_sequences_running') === 0, 'nothing runs any more');
  assert.equal(await metric('tutti_cancelled_total{reason="client"}'), before + 1);
});

test('a failed or refused stream throws', async () => {
  await assert.rejects(client.completions.create(
    { model, prompt, stream: true, max_tokens: 400, tutti: { deadline_ms: 1 } }).then(all),
    e => e.code === 'deadline_exceeded');
});

test('a full queue is tried again after the time it names', async () => {
  // a proxy that answers 429 twice in this server's words, then lets requests through
  let refusals = 0;
  const proxy = http.createServer((req, res) => {
    if (refusals < 2) {
      refusals++;
      res.writeHead(429, { 'content-type': 'application/json', 'retry-after': '1', 'retry-after-ms': '30' });
      res.end(JSON.stringify({ error: { message: 'full', type: 'rate_limit_error', param: null, code: 'queue_full' } }));
      return;
    }
    const forward = http.request(url + req.url, { method: req.method, headers: req.headers },
      answer => { res.writeHead(answer.statusCode, answer.headers); answer.pipe(res); });
    req.pipe(forward);
  }).listen(0);
  const through = new OpenAI({ baseURL: `http://127.0.0.1:${proxy.address().port}/v1`, apiKey });
  const start = Date.now();
  const r = await through.completions.create({ model, prompt, max_tokens: 2 });
  assert.equal(r.object, 'text_completion');
  assert.equal(refusals, 2);
  assert.ok(Date.now() - start < 900, 'waited for milliseconds, not for whole seconds');
  proxy.close();
  proxy.closeAllConnections();
});

test('base addresses with and without a slash at the end', async () => {
  const slashed = new OpenAI({ baseURL: `${url}/v1/`, apiKey });
  assert.ok((await slashed.models.list()).data.length);
});

test('a hundred requests at once are all answered alike', async () => {
  const body = { model, prompt, max_tokens: 4, seed: 3 };
  const alone = (await client.completions.create(body)).choices[0].text;
  const many = await Promise.all(Array.from({ length: 100 }, () => client.completions.create(body)));
  assert.ok(many.every(r => r.choices[0].text === alone));
});

test('the API document is valid OpenAPI 3.1', async () => {
  const doc = await (await fetch(`${url}/openapi.json`)).json();
  assert.equal(doc.openapi, '3.1.0');
  await SwaggerParser.validate(structuredClone(doc));
  assert.ok(doc.paths['/v1/chat/completions'].post.security.length);
});

// --- images ---

const imageModel = process.env.IMAGE_MODEL;
const crc = buffer => ~buffer.reduce((c, b) => {
  c ^= b;
  for (let k = 0; k < 8; k++) c = c >>> 1 ^ (c & 1 ? 0xEDB88320 : 0);
  return c;
}, ~0) >>> 0;

function chunk(type, data) {
  const out = Buffer.alloc(12 + data.length);
  out.writeUInt32BE(data.length, 0);
  out.write(type, 4, 'latin1');
  data.copy(out, 8);
  out.writeUInt32BE(crc(out.subarray(4, 8 + data.length)), 8 + data.length);
  return out;
}

/** A square PNG; pixel(x, y) gives [r, g, b, a]. */
function png(side, pixel) {
  const head = Buffer.alloc(13), rows = [];
  head.writeUInt32BE(side, 0);
  head.writeUInt32BE(side, 4);
  head.set([8, 6], 8);
  for (let y = 0; y < side; y++) {
    rows.push(0);
    for (let x = 0; x < side; x++) rows.push(...pixel(x, y));
  }
  return Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), chunk('IHDR', head),
    chunk('IDAT', zlib.deflateSync(Buffer.from(rows))), chunk('IEND', Buffer.alloc(0))]);
}

/** RGB of every pixel of a file as the server writes it: 8 bits, not interlaced, filters 0 and 1. */
function pixels(base64) {
  const file = Buffer.from(base64, 'base64'), parts = [];
  const side = file.readUInt32BE(16);
  for (let at = 8; at < file.length; at += 12 + file.readUInt32BE(at))
    if (file.toString('latin1', at + 4, at + 8) === 'IDAT')
      parts.push(file.subarray(at + 8, at + 8 + file.readUInt32BE(at)));
  const raw = zlib.inflateSync(Buffer.concat(parts)), out = Buffer.alloc(side * side * 3);
  for (let y = 0; y < side; y++) {
    const filter = raw[y * (side * 3 + 1)];
    assert.ok(filter < 2, `filter ${filter}`);
    for (let i = 0; i < side * 3; i++)
      out[y * side * 3 + i] = raw[y * (side * 3 + 1) + 1 + i] +
        (filter && i >= 3 ? out[y * side * 3 + i - 3] : 0);
  }
  return { side, out };
}

const file = (buffer, name) => toFile(buffer, name, { type: 'image/png' });

test('images are generated', async () => {
  const r = await client.images.generate({ model: imageModel, prompt: '', n: 2, seed: 5 });
  assert.equal(r.data.length, 2);
  assert.notEqual(r.data[0].b64_json, r.data[1].b64_json);
  const { side } = pixels(r.data[0].b64_json);
  assert.equal(r.size, `${side}x${side}`);
  assert.equal(r.output_format, 'png');
  assert.equal(r.usage.total_tokens, r.usage.input_tokens + r.usage.output_tokens);
  const again = await client.images.generate({ model: imageModel, prompt: '', n: 2, seed: 5 });
  assert.deepEqual(again.data, r.data);
});

test('a search tells its steps and puts the best first', async () => {
  const search = { verifier: 'likelihood', algorithm: 'beam', beam_width: 2, candidates: 3, schedule: [1, 2, 8] };
  const body = { model: imageModel, prompt: '', n: 2, seed: 5, tutti: { search } };
  const whole = await client.images.generate(body);
  const score = whole.data.map(d => d.tutti.score);
  assert.ok(score[0] >= score[1]);
  assert.equal(whole.tutti.search.candidates, 3 + 6 + 6);
  const events = await all(await client.images.generate({ ...body, stream: true }));
  const steps = events.filter(e => e.type === 'image_generation.search_step');
  assert.deepEqual(steps.map(s => s.candidates.length), [3, 6, 6]);
  assert.ok(steps[1].candidates.every(c => steps[0].candidates[c.parent].kept));
  const done = events.filter(e => e.type === 'image_generation.completed');
  assert.deepEqual(done.map(d => d.score), score);
  await until(async () => await metric('tutti_search_candidates_total') >= 30, 'candidates are counted');
  await assert.rejects(client.images.generate({ ...body, tutti: { search: { ...search, beams: 1 } } }),
    e => e.status === 400 && e.param === 'tutti.search.beams');
});

test('images stream partial pictures, then themselves', async () => {
  const body = { model: imageModel, prompt: '', seed: 5 };
  const events = await all(await client.images.generate({ ...body, stream: true, partial_images: 2 }));
  const last = events.pop(), whole = await client.images.generate(body);
  assert.equal(last.type, 'image_generation.completed');
  assert.equal(last.b64_json, whole.data[0].b64_json);
  assert.ok(last.usage.output_tokens > 0);
  assert.ok(events.length <= 2);
  for (const [i, e] of events.entries()) {
    assert.equal(e.type, 'image_generation.partial_image');
    assert.ok(e.partial_image_index >= i);
    pixels(e.b64_json);
  }
});

test('an image is edited under a mask, as a form', async () => {
  const side = 64;
  const image = png(side, (x, y) => [x * 4, y * 4, 128, 255]);
  const mask = png(side, (x, y) => [0, 0, 0, x >= 16 && x < 40 && y >= 24 && y < 48 ? 0 : 255]);
  const r = await client.images.edit({
    model: imageModel, image: await file(image, 'image.png'), mask: await file(mask, 'mask.png'),
    prompt: '', seed: 3, tutti: { steps: 3, return_tokens: true },
  });
  const { out } = pixels(r.data[0].b64_json);
  const steps = r.data[0].tutti.steps, columns = r.data[0].tutti.columns, w = side / columns;
  let changed = 0;
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const at = (y * side + x) * 3, same = out[at] === x * 4 && out[at + 1] === y * 4 && out[at + 2] === 128;
      if (!steps[Math.floor(y / w) * columns + Math.floor(x / w)]) assert.ok(same, `pixel ${x},${y}`);
      changed += !same;
    }
  }
  assert.ok(changed > 0);
  assert.equal(r.tutti.steps, 3);
  const list = await client.images.edit({
    model: imageModel, image: [await file(image, 'image.png')], mask: await file(mask, 'mask.png'),
    prompt: '', seed: 3, tutti: { steps: 3, return_tokens: true },
  });
  assert.deepEqual(list.data, r.data);
});

test('variations of an image', async () => {
  const image = png(50, (x, y) => [x * 5, 255 - y * 5, 90, 255]);
  const r = await client.images.createVariation({ model: imageModel, image: await file(image, 'i.png'), n: 2 });
  assert.equal(r.data.length, 2);
  assert.notEqual(r.data[0].b64_json, r.data[1].b64_json);
});

test('what is wrong with a request for images is named', async () => {
  const refused = async (promise, param, code) => {
    const e = await promise.then(() => assert.fail('was answered'), error => error);
    assert.ok(e instanceof OpenAI.BadRequestError, `${e}`);
    assert.equal(e.param, param);
    assert.equal(e.code, code);
  };
  const make = body => client.images.generate({ model: imageModel, prompt: '', ...body });
  await refused(make({ size: '1792x1024' }), 'size', 'unsupported_value');
  await refused(make({ response_format: 'url' }), 'response_format', 'unsupported_value');
  await refused(make({ prompt: 'the thing that nobody has a picture of' }), 'prompt', 'invalid_value');
  await refused(client.images.edit({ model: imageModel, prompt: '',
    image: await file(Buffer.from('not a picture'), 'x.png') }), 'image', 'invalid_image');
  await refused(client.images.edit({ model: imageModel, prompt: '',
    image: await file(png(4, () => [1, 2, 3, 255]).subarray(0, 60), 'x.png') }), 'image', 'invalid_image');
});

test('a stream of images that is left frees its place', async () => {
  const stream = await client.images.generate({ model: imageModel, prompt: '', n: 8, stream: true,
    partial_images: 3, tutti: { steps: 64, stream_mode: 'delta' } });
  for await (const event of stream) { assert.ok(event.type); break; }
  await until(async () => await metric('tutti_sequences_running') === 0, 'nothing runs');
});

test('images as a job: asked for, followed, cancelled', async () => {
  const headers = { 'Content-Type': 'application/json', Authorization: `Bearer ${apiKey}` };
  const send = async (method, path, body) => {
    const r = await fetch(`${url}${path}`, { method, headers, body: body && JSON.stringify(body) });
    return { status: r.status, body: await r.json() };
  };
  const job = await send('POST', '/v1/images/generations',
    { model: imageModel, prompt: '', seed: 5, tutti: { async: true } });
  assert.equal(job.status, 202);
  let seen = job;
  await until(async () => {
    seen = await send('GET', job.body.poll_url);
    return !['queued', 'generating'].includes(seen.body.status);
  }, 'the job ends');
  assert.equal(seen.body.status, 'completed');
  const direct = await client.images.generate({ model: imageModel, prompt: '', seed: 5 });
  assert.deepEqual(seen.body.result.data, direct.data);
  const long = await send('POST', '/v1/images/generations',
    { model: imageModel, prompt: '', n: 64, tutti: { async: true, steps: 64 } });
  assert.equal((await send('POST', `${long.body.poll_url}/cancel`)).status, 200);
  await until(async () => (await send('GET', long.body.poll_url)).body.status === 'cancelled', 'cancelled');
  assert.equal((await send('DELETE', long.body.poll_url)).status, 200);
  assert.equal((await send('GET', long.body.poll_url)).status, 404);
});
