// Runs one scenario with the official JavaScript client and prints what came of it as JSON.
// Usage: node client.mjs URL SCENARIO
import { Ollama } from "ollama";

const [host, scenario] = process.argv.slice(2);
const client = new Ollama({ host });
const chat = { model: "llama3:8b", messages: [{ role: "user", content: "Hi" }] };

const scenarios = {
  list: async () => ({ models: (await client.list()).models.map((model) => model.name) }),
  chat: async () => ({ text: (await client.chat(chat)).message.content }),
  stream: async () => {
    let text = "";
    let chunks = 0;
    let done = false;
    for await (const part of await client.chat({ ...chat, stream: true })) {
      text += part.message.content;
      chunks += 1;
      done = part.done;
    }
    return { text, chunks, done };
  },
  generate: async () => {
    const prompt = { model: "llama3:8b", prompt: "Hi" };
    const whole = await client.generate(prompt);
    let text = "";
    let done = false;
    for await (const part of await client.generate({ ...prompt, stream: true })) {
      text += part.response;
      done = part.done;
    }
    return { whole: whole.response, text, done };
  },
  embed: async () => {
    const { embeddings } = await client.embed({ model: "nomic-embed-text", input: ["a", "b"] });
    return { count: embeddings.length, numbers: embeddings.every((row) => row.length > 0 && row.every(Number.isFinite)) };
  },
  show: async () => {
    const shown = await client.show({ model: "llama3:8b" });
    return { details: shown.details, capabilities: shown.capabilities };
  },
  missing: async () => ({ text: (await client.chat({ ...chat, model: "x" })).message.content }),
};

try {
  console.log(JSON.stringify(await scenarios[scenario]()));
} catch (error) {
  console.log(JSON.stringify({ error: error.message, name: error.name, status: error.status_code ?? null }));
}
