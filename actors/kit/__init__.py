"""What every actor is built from: mailboxes and supervision. Knows nothing of servers, requests or models."""
