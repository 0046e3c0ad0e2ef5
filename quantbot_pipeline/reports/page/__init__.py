"""What the pages for people share: how tables travel, how a file is put together, what all of them draw and show.

`encode` makes columns of tables, `drawing` keeps Vega's script and the specifications, `charts` has the charts that more than one
page draws, `html` writes one self-contained file; `assets` holds what runs in the browser of every page.
"""
