"""All estimators behind one face: predict what a request costs, learn from what it cost, survive a restart."""
