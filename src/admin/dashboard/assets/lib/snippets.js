// How a model is asked: for a shell, and in Python and JavaScript.

export const TOKEN = "YOUR_GENERATED_TOKEN";

/** A word of a shell, whatever is in it. */
function quoted(text) {
  return /^[A-Za-z0-9_./:@%+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

function body(model, prompt) {
  return { model, messages: [{ role: "user", content: prompt }] };
}

export function curl({ url, model, prompt, ca }) {
  const authority = ca && url.startsWith("https:") ? ` --cacert ${quoted(ca)}` : "";
  return `curl${authority} ${quoted(`${url}/chat/completions`)} \\\n  -H "Authorization: Bearer ${TOKEN}" \\\n  -H 'Content-Type: application/json' \\\n  -d ${quoted(JSON.stringify(body(model, prompt)))}`;
}

export function python({ url, model, prompt, ca }) {
  const own = ca && url.startsWith("https:");
  const text = (value) => JSON.stringify(value);
  return [
    own ? "import openai, ssl" : "import openai",
    own ? `ca = ssl.create_default_context(cafile=${text(ca)})` : null,
    `client = openai.OpenAI(base_url=${text(url)}, api_key="${TOKEN}"${own ? ",\n                       http_client=openai.DefaultHttpxClient(verify=ca)" : ""})`,
    "answer = client.chat.completions.create(",
    `    model=${text(model)},`,
    `    messages=[{"role": "user", "content": ${text(prompt)}}],`,
    ")",
    "print(answer.choices[0].message.content)",
  ].filter((line) => line !== null).join("\n");
}

export function javascript({ url, model, prompt, ca }) {
  const own = ca && url.startsWith("https:");
  const text = (value) => JSON.stringify(value);
  return [
    own ? `// Start Node with NODE_EXTRA_CA_CERTS=${quoted(ca)}` : null,
    'import OpenAI from "openai";',
    `const client = new OpenAI({ baseURL: ${text(url)}, apiKey: "${TOKEN}" });`,
    "const answer = await client.chat.completions.create({",
    `  model: ${text(model)},`,
    `  messages: [{ role: "user", content: ${text(prompt)} }],`,
    "});",
    "console.log(answer.choices[0].message.content);",
  ].filter((line) => line !== null).join("\n");
}
