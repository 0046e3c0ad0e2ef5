"""`quantbot`: a thin command line over the same assets, stores and catalog that the Dagster UI shows."""
