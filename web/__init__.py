"""The front end: translates HTTP into calls to the actors and back."""
