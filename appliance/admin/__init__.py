"""The admin API on a unix socket."""
