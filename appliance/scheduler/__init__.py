"""Which replica serves a request, and when: pure, events in and effects out."""
