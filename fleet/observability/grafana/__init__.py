"""The Grafana dashboards, made from the table of metrics. Knows no running fleet."""
