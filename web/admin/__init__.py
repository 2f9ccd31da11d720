"""The orchestrator's REST API, one blueprint a topic."""
