"""The receiver: subscriber → decode → resolve → commit → acknowledge → confirm, in one straight line."""
