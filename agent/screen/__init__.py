"""The full-screen view of `holdfast watch`."""
