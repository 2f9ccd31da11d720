"""Building blocks of estimates: averages that forget with time. Know nothing of servers."""
