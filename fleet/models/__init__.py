"""What servers have and do with models: inventories, loads, jobs, options. Does not choose servers."""
