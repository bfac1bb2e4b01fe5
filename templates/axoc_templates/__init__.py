"""Templates, launcher and locks that axoc puts into bundles. Data only: nothing here is imported by a run."""
