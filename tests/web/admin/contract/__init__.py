"""The admin API against its reference: a row for each documented route."""
