"""A query's answer as CSV for a spreadsheet and as Parquet for another program; what `quantbot query --out` does."""

import tempfile
from pathlib import Path

import pyarrow.parquet as pq

from quantbot_pipeline import Home
from quantbot_pipeline.catalog.room import answering
from quantbot_pipeline.cli.export import write_parquet, write_text

catalog = Home().catalog  # of QUANTBOT_HOME, or of the current directory
folder = Path(tempfile.mkdtemp())

sql = "SELECT caller_name, call_id, peak_multiple, dd_bps FROM paths JOIN latest_runs USING (run_id) WHERE run_type = 'full' ORDER BY call_id"
with answering(catalog, sql) as answer, (folder / "paths.csv").open("w") as file:
    write_text(answer.batches, answer.schema.names, "csv", file)
with answering(catalog, "FROM trades") as answer, (folder / "trades.parquet").open("wb") as file:
    write_parquet(answer.batches, answer.schema, file)

print(*(folder / "paths.csv").read_text().splitlines()[:3], sep="\n")
table = pq.read_table(folder / "trades.parquet")
print(
    f"trades.parquet: {table.num_rows} rows, {table.num_columns} columns; returns are {table.schema.field('realized_return_bps').type}"
)
