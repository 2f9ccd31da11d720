"""The whole product over real sockets."""
