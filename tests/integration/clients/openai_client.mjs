// What the test asks openai-node to do. Reads {base_url, key, model, vectors} from standard input,
// writes what it saw as JSON.
import OpenAI from "openai";

let input = "";
for await (const part of process.stdin) input += part;
const asked = JSON.parse(input);
const client = new OpenAI({
  baseURL: asked.base_url,
  apiKey: asked.key,
  maxRetries: 0,
  timeout: 30_000,
});
const messages = [{ role: "user", content: "Say something about the river." }];
const seen = {};

const answer = await client.chat.completions.create({
  model: asked.model,
  messages,
  max_tokens: 6,
});
seen.chat = { text: answer.choices[0].message.content, usage: answer.usage };
seen.requestId = answer._request_id;

const stream = await client.chat.completions.create({
  model: asked.model,
  messages,
  max_tokens: 6,
  stream: true,
  stream_options: { include_usage: true },
});
let text = "";
let usages = [];
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta?.content ?? "";
  if (chunk.usage) usages.push(chunk.usage);
}
seen.stream = { text, usages };

const silent = await client.chat.completions.create({
  model: asked.model,
  messages,
  max_tokens: 6,
  stream: true,
});
seen.silent = 0;
for await (const chunk of silent) seen.silent += chunk.usage ? 1 : 0;

// The client asks for base64 by itself and unpacks it.
const vectors = await client.embeddings.create({ model: asked.vectors, input: ["a", "b"] });
seen.vectors = vectors.data.map((item) => item.embedding.length);

const response = await client.responses.create({
  model: asked.model,
  input: "Say something.",
  max_output_tokens: 6,
});
seen.response = { text: response.output_text, usage: response.usage };

seen.models = [];
for await (const model of client.models.list()) seen.models.push(model.id);

const endless = await client.chat.completions.create({
  model: asked.model,
  messages,
  max_tokens: 200,
  stream: true,
});
for await (const chunk of endless) {
  endless.controller.abort();
  break;
}

seen.errors = {};
const wrong = {
  key: [new OpenAI({ baseURL: asked.base_url, apiKey: "clsk_live_wrong", maxRetries: 0 }), asked.model],
  model: [client, "gpt-99"],
};
for (const [name, [one, model]] of Object.entries(wrong)) {
  try {
    await one.chat.completions.create({ model, messages, max_tokens: 2 });
  } catch (error) {
    seen.errors[name] = [error.constructor.name, error.status, error.code];
  }
}
process.stdout.write(JSON.stringify(seen));
