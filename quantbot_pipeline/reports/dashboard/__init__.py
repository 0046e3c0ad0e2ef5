"""The dashboard: one HTML file over the newest runs, opened from disk without a network.

`data` computes aggregates from verified artifacts, `charts` says how they are drawn, `page` writes the file; `assets` holds
what runs in the browser. Text from outside (callers, tokens, messages) travels as JSON and becomes text nodes, never markup.
"""
