"""What is added to events: pure functions over batches. Whatever needs a socket or a file is passed in."""
