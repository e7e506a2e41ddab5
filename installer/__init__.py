"""The installer: bare server to running appliance, standard library only."""
