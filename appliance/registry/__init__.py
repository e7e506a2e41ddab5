"""The configuration of a site: tenants, keys, models, deployments, the audit of each change."""
