"""Between gateway and cloud: topics, messages, presence, confirm, and the link that carries them."""
