"""SymMIM (Nguyen and Park, ICPR 2024): preset and the published number."""
