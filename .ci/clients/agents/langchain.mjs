// LangChain JS: one streamed answer, its words as they come.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.env.TIDEGATE_NODE_MODULES}/package.json`);
const { ChatOpenAI } = await import(pathToFileURL(require.resolve("@langchain/openai")));

const chat = new ChatOpenAI({
  model: process.env.TIDEGATE_MODEL, apiKey: process.env.OPENAI_API_KEY,
  configuration: { baseURL: process.env.OPENAI_BASE_URL },
});
try {
  for await (const piece of await chat.stream(process.env.PROMPT)) process.stdout.write(String(piece.content));
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
