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
  missing: async () => ({ text: (await client.chat({ ...chat, model: "x" })).message.content }),
};

try {
  console.log(JSON.stringify(await scenarios[scenario]()));
} catch (error) {
  console.log(JSON.stringify({ error: error.message, name: error.name, status: error.status_code ?? null }));
}
