pytest_plugins = ["axoc_runtime.testing"]
