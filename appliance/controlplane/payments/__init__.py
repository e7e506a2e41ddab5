"""From what is owed to Stripe: objects made once, usage delivered once, and what comes back."""
