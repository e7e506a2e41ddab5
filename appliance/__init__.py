"""The appliance: gateway, registry, ledger and fleet of one site."""
