"""Building blocks of estimates: averages that forget with time, and tables that stay small. Know nothing of servers."""
