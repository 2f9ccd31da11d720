"""Those who watch: metrics, alerts, traces, the AI status. They read, are told, and decide nothing about requests."""
