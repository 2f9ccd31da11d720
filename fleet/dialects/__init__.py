"""How the three families of clients speak: Ollama's own API, OpenAI's, Anthropic's."""
