"""How both programs behave as programs: settings, console, logs, supervision, and the word to systemd."""
