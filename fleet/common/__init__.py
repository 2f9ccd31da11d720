"""Words and values that every room uses: ids, errors, model names. Imports nothing of the other rooms."""
