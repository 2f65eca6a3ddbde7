"""How a run is computed: torch and timm. Nothing here knows of studies, executors or reports."""
