"""The commands of `cic` that the appliance offers."""
