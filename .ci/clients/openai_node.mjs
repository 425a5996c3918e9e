// The openai SDK for Node. Prints one JSON text per check; the report is kept by its caller.
//
// Run with NODE_EXTRA_CA_CERTS set to the gateway's authority, as people do.

import { createRequire } from "node:module";

const require = createRequire(process.env.TIDEGATE_NODE_MODULES + "/");
const { default: OpenAI } = await import(require.resolve("openai").replace(/index\.js$/, "index.mjs"));

const { TIDEGATE_URL: url, TIDEGATE_TOKEN: token } = process.env;
const messages = [{ role: "user", content: "Hello!" }];
const tool = JSON.parse(process.env.TIDEGATE_TOOL);

/** When each request left and what came back. */
class Exchanges {
  requests = [];
  responses = [];
  fetch = async (...given) => {
    this.requests.push(performance.now());
    const response = await fetch(...given);
    this.responses.push({ at: performance.now(), status: response.status, headers: response.headers });
    return response;
  };
  pause() {
    const [first] = this.responses;
    const asked = Number(first.headers.get("retry-after-ms")) / 1000;
    const waited = (this.requests[1] - first.at) / 1000;
    expect(waited >= asked - 0.01 && waited <= asked + 1.5, `waited ${waited} s, asked for ${asked} s`);
    return `statuses ${this.responses.map((r) => r.status)}, waited ${waited.toFixed(2)} s of ${asked} s`;
  }
}

function client(options = {}) {
  return new OpenAI({ baseURL: `${url}/v1`, apiKey: token, maxRetries: 0, ...options });
}

function expect(holds, message) {
  if (!holds) throw new Error(message);
}

async function raised(kind, call) {
  try {
    await call();
  } catch (error) {
    expect(error instanceof kind, `${error.constructor.name} was raised: ${error.message}`);
    return error;
  }
  throw new Error(`no ${kind.name} was raised`);
}

async function check(name, body) {
  const began = performance.now();
  let line;
  try {
    line = { name, ok: true, figure: String((await body()) ?? "") };
  } catch (error) {
    line = { name, ok: false, figure: String(error.message) };
  }
  console.log(JSON.stringify({ ...line, seconds: (performance.now() - began) / 1000 }));
}

const sdk = client();

await check("chat, with the same text as a stream", async () => {
  const ask = { model: "plain", messages, temperature: 0 };
  const whole = await sdk.chat.completions.create(ask);
  let text = "";
  let usage;
  const stream = await sdk.chat.completions.create({
    ...ask, stream: true, stream_options: { include_usage: true },
  });
  for await (const event of stream) {
    text += event.choices[0]?.delta.content ?? "";
    usage = event.usage ?? usage;
  }
  expect(text === whole.choices[0].message.content, `${text} / ${whole.choices[0].message.content}`);
  expect(usage.total_tokens === whole.usage.total_tokens, JSON.stringify(usage));
  return `${usage.total_tokens} tokens`;
});

await check("a tool call is passed through a stream", async () => {
  const stream = sdk.chat.completions.stream({ model: "plain", messages, tools: [tool], tool_choice: "required" });
  const [call] = (await stream.finalChatCompletion()).choices[0].message.tool_calls;
  expect(call.function.name === "weather", JSON.stringify(call));
  return JSON.stringify(JSON.parse(call.function.arguments));
});

await check("responses, streaming", async () => {
  const events = [];
  for await (const event of await sdk.responses.create({ model: "plain", input: "Hello!", stream: true })) {
    events.push(event.type);
  }
  expect(events.at(-1) === "response.completed", events.at(-1));
  return `${events.length} events`;
});

await check("error classes", async () => {
  const unknown = await raised(OpenAI.NotFoundError, () =>
    sdk.chat.completions.create({ model: "nothing", messages }));
  expect(unknown.code === "model_not_found" && unknown.requestID, JSON.stringify(unknown.error));
  const bad = await raised(OpenAI.AuthenticationError, () => client({ apiKey: "bad" }).models.list());
  expect(bad.code === "invalid_api_key", JSON.stringify(bad.error));
  return `${unknown.code}, ${bad.code}`;
});

await check("a stream that breaks off throws", async () => {
  const stream = await sdk.chat.completions.create({ model: "cut", messages, stream: true });
  const error = await raised(OpenAI.APIError, async () => {
    for await (const event of stream) void event;
  });
  return error.message;
});

await check("429 at the limit; the retry obeys our headers and is answered", async () => {
  const held = await sdk.chat.completions.create({
    model: "narrow", messages, stream: true, max_tokens: 20, ignore_eos: true,
  });
  const events = held[Symbol.asyncIterator]();
  await events.next();
  await raised(OpenAI.RateLimitError, () => sdk.chat.completions.create({ model: "narrow", messages }));
  const seen = new Exchanges();
  await client({ maxRetries: 5, fetch: seen.fetch }).chat.completions.create({
    model: "narrow", messages, max_tokens: 1,
  });
  held.controller.abort();
  return seen.pause();
});

await check("503 while loading; the retries obey our headers and are answered", async () => {
  const seen = new Exchanges();
  const answer = await client({ maxRetries: 10, fetch: seen.fetch }).chat.completions.create({ model: "cold-node", messages });
  expect(answer.choices[0].message.content, "no content");
  expect(seen.responses[0].status === 503, `first status ${seen.responses[0].status}`);
  return seen.pause();
});

await check("an aborted stream frees its place", async () => {
  const stream = await sdk.chat.completions.create({
    model: "narrow", messages, stream: true, max_tokens: 400, ignore_eos: true,
  });
  const events = stream[Symbol.asyncIterator]();
  await events.next();
  stream.controller.abort();
  const began = performance.now();
  for (;;) {
    try {
      await sdk.chat.completions.create({ model: "narrow", messages, max_tokens: 1 });
      return `free within ${Math.round(performance.now() - began)} ms`;
    } catch (error) {
      expect(error instanceof OpenAI.RateLimitError && performance.now() - began < 2000, error.message);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
});
