// The AI SDK: one streamed answer, its words as they come.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.env.TIDEGATE_NODE_MODULES}/package.json`);
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { streamText } = await load("ai");
const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");

const provider = createOpenAICompatible({
  name: "tidegate", baseURL: process.env.OPENAI_BASE_URL, apiKey: process.env.OPENAI_API_KEY,
});
let failed;
const { textStream } = streamText({
  model: provider(process.env.TIDEGATE_MODEL), prompt: process.env.PROMPT,
  onError: ({ error }) => { failed = error; },
});
for await (const text of textStream) process.stdout.write(text);
if (failed) {
  const last = failed.lastError ?? failed;
  console.error(last.responseBody ?? last.message ?? JSON.stringify(last));
  process.exit(1);
}
