"""The routes of Ollama, OpenAI and Anthropic clients. Knows no admin call and no connection."""
