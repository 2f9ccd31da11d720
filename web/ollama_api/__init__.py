"""The routes of Ollama, OpenAI and Anthropic clients. Admin calls are elsewhere."""
