"""Every proven entry of every archived log as rows in Parquet files, and the search over them."""
