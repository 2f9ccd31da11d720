"""What every actor is built from: mailboxes, inboxes, supervision. Knows nothing of servers, requests or models."""
