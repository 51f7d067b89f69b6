"""From the outbox to the receiver: which batches are on their way (window, pure), and who sends them (forwarder)."""
