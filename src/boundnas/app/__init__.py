"""The command: configurations, the whole job, the command line."""
