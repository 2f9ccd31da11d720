"""Many Ollama servers as one: the pure domain. No IO, no clock, no randomness of its own."""
