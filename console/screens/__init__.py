"""The views of the eight modes.

How a screen is made: a subclass of `console.view.View` named in `console/modes.py`. It says in
`topics` which tables of the live stream it needs, keeps a `LiveTable` current in `update` (whole
tables by `replace`, else `patch` with the rows that changed), offers in `actions` what can be done
to the selected row, each as the command line that does it, and opens further views on Enter.
What the stream does not bring it reads in `shown` with `self.load(...)` from `self.admin`.
"""
