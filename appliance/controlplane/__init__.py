"""The vendor's control plane: verifies manifests, answers with receipts, bills through Stripe."""
