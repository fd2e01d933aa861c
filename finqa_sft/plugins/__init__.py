"""The plugin layer: hook specifications, the records that hooks return, and the manager."""
