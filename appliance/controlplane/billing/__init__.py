"""From accepted usage to what is owed: payers, prices, postings, and whether all books agree."""
