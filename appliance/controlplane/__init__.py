"""The vendor's control plane: verifies manifests, answers with receipts, and bills through Stripe."""
