"""What bytes say in a well-known protocol, recognised by the bytes alone."""
