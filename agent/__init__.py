"""The gateway program: driver → batcher → outbox → uplink → confirm → release, in one straight line."""
