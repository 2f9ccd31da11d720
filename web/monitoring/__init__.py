"""The status page, the exposition, and the counting of HTTP calls. Decides nothing, and knows no route."""
