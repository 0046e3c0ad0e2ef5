"""The tear sheet: what one caller's calls, or one policy on them, earned over time, as frames and as one HTML file.

`numbers` has the formulas, free of files and of Dagster; `gather` reads verified artifacts; `sheet` puts both together; `page`
writes the file; `assets` holds what runs in the browser.
"""
