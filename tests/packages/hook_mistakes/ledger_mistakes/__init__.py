"""Each module makes one mistake."""
